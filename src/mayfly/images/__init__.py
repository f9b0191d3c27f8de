"""What sandboxes start from: Firecracker, guest kernel, root file systems, emulated-host image; made and stored."""
