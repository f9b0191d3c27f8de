"""The QEMU command of the emulated host: software-emulated AMD SVM, three drives, one forwarded port, no root."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mayfly.errors import SetupError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["NODE_PORT", "QemuMachine", "default_mem_mib"]

NODE_PORT = 8080
"""The node's TCP port inside the emulated host."""

_MIB = 1024 * 1024
_KERNEL_ARGUMENTS = (
    "console=ttyS0 quiet loglevel=4 panic=-1 mitigations=off root=/dev/vda ro rootfstype=ext4 "
    "net.ifnames=0 init=/sbin/mayfly-host-init"
)


@dataclass(frozen=True, slots=True)
class QemuMachine:
    """Everything the command line is made of. `port` is on the loopback interface outside."""

    kernel: Path
    initrd: Path
    root: Path
    state_disk: Path
    code_tar: Path
    port: int
    mem_mib: int

    def command(self) -> list[str]:
        """QEMU's argument list. SetupError when QEMU is not installed."""
        qemu = shutil.which("qemu-system-x86_64")
        if qemu is None:
            raise SetupError("qemu-system-x86_64 is not installed", hint="run `mayfly setup`")
        return [
            qemu,
            *("-name", "mayfly-host,process=mayfly-host", "-nodefaults", "-no-user-config", "-no-reboot"),
            *("-display", "none", "-M", "q35,usb=off,vmport=off,hpet=off,smbus=off"),
            *("-accel", f"tcg,thread=multi,tb-size={_translation_cache_mib()}"),
            *("-cpu", "EPYC,+svm,check=off", "-smp", "1", "-m", str(self.mem_mib)),
            *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
            *("-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"),
            *("-kernel", str(self.kernel), "-initrd", str(self.initrd), "-append", _KERNEL_ARGUMENTS),
            *_drive("root", self.root, read_only=True),
            *_drive("state", self.state_disk, read_only=False),
            *_drive("code", self.code_tar, read_only=True),
            *("-netdev", f"user,id=net,restrict=on,ipv6=off,hostfwd=tcp:127.0.0.1:{self.port}-10.0.2.15:{NODE_PORT}"),
            *("-device", "virtio-net-pci,netdev=net,romfile="),
            *("-device", "virtio-rng-pci"),
        ]


def _drive(name: str, path: Path, *, read_only: bool) -> list[str]:
    file = str(path).replace(",", ",,")
    mode = "readonly=on" if read_only else "discard=unmap,detect-zeroes=unmap"
    drive = f"id={name},file={file},format=raw,if=none,werror=report,rerror=report,{mode}"
    return ["-drive", drive, "-device", f"virtio-blk-pci,drive={name}"]


def default_mem_mib() -> int:
    """Memory of the emulated host: half of the machine's, at least 1,536 and at most 4,096 MiB."""
    return min(4096, max(1536, _memory_mib() // 2))


def _memory_mib() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // _MIB


def _translation_cache_mib() -> int:
    """A large cache of translated code saves a third of the time; small machines cannot spare it."""
    return 1024 if _memory_mib() >= 8192 else 256
