"""Firecracker: its API, its jailer, and the life of one microVM."""
