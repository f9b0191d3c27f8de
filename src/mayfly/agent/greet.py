"""What makes a clone differ from its twins before the program runs: entropy, clock, names."""

from __future__ import annotations

import fcntl
import os
import struct
import time

from mayfly.agent import kernel
from mayfly.agent.bare import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mayfly.agent.requests import GreetRequest

__all__ = ["greet", "prepare"]

_RNDADDENTROPY = 0x40085203
_RNDRESEEDCRNG = 0x5207
_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_BOOT_ID_FILE = "/run/boot-id"


def greet(request: GreetRequest) -> None:
    """Applies all of it. Raises OSError when any part fails, for then the clone must not be used."""
    _add_entropy(request.entropy)
    time.clock_settime_ns(time.CLOCK_REALTIME, request.unix_ns)
    socket.sethostname(request.hostname)
    _write_names(request.hostname, request.machine_id)
    _renew_boot_id()


def prepare() -> None:
    """Makes the files that a greeting writes, with nobody's names, so that it overwrites them only. Raises OSError."""
    _write_names("localhost", "")
    _renew_boot_id()


def _add_entropy(entropy: bytes) -> None:
    fd = os.open("/dev/urandom", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, _RNDADDENTROPY, struct.pack("ii", len(entropy) * 8, len(entropy)) + entropy)
        fcntl.ioctl(fd, _RNDRESEEDCRNG)
    finally:
        os.close(fd)


def _write_names(hostname: str, machine_id: str) -> None:
    _write("/etc/hostname", hostname + "\n")
    _write("/etc/hosts", f"127.0.0.1 localhost {hostname}\n::1 localhost\n")
    _write("/etc/machine-id", machine_id + "\n")


def _renew_boot_id() -> None:
    """The kernel's own boot id came with the template's memory; a file over it is what programs see."""
    digits = os.urandom(16).hex()
    text = f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"
    existed = os.access(_BOOT_ID_FILE, os.F_OK)
    _write(_BOOT_ID_FILE, text + "\n")
    if not existed:
        kernel.mount(_BOOT_ID_FILE, _BOOT_ID, flags=kernel.MS_BIND)


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o444)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
