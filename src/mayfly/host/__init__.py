"""This machine: paths, processes, cgroups, KVM, and the emulated host where KVM is missing."""
