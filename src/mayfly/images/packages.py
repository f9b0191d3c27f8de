"""The system packages that set-up's tools come from: what is missing, and its installation with apt."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mayfly.errors import SetupError
from mayfly.images.commands import run_tool, tool_path

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from mayfly.images.progress import Step

__all__ = ["Need", "Purpose", "install_packages", "missing_needs"]

Purpose = Literal["node", "images", "kernel", "emulated"]
"""What tools are for: running a node, making images, compiling the kernel, running the emulated host."""

_APT_TIMEOUT_S = 1800.0
_APT_LOCK_S = 300
_LOCKED = "Could not get lock"
_LOCK_PAUSE_S = 2.0


@dataclass(frozen=True)
class Need:
    """A tool or file, and the Debian package that has it. `found` looks for the thing, not for the package."""

    what: str
    package: str
    purposes: tuple[Purpose, ...]

    def found(self) -> bool:
        """True when it is there, however it was installed."""
        if self.what.startswith("/"):
            return Path(self.what).exists()
        return shutil.which(self.what, path=tool_path()) is not None


_NEEDS = (
    Need("mksquashfs", "squashfs-tools", ("node", "images")),
    Need("sqfstar", "squashfs-tools", ("images",)),  # comes with a mksquashfs that reads archives
    Need("mke2fs", "e2fsprogs", ("images", "emulated")),
    Need("qemu-system-x86_64", "qemu-system-x86", ("emulated",)),
    Need("mmdebstrap", "mmdebstrap", ("images",)),
    Need("/usr/share/keyrings/debian-archive-keyring.gpg", "debian-archive-keyring", ("images",)),
    Need("tar", "tar", ("images", "kernel")),
    Need("xz", "xz-utils", ("kernel",)),
    Need("gcc", "gcc", ("kernel",)),
    Need("/usr/include/stdio.h", "libc6-dev", ("kernel",)),
    Need("make", "make", ("kernel",)),
    Need("flex", "flex", ("kernel",)),
    Need("bison", "bison", ("kernel",)),
    Need("bc", "bc", ("kernel",)),
    Need("perl", "perl", ("kernel",)),
    Need("objcopy", "binutils", ("kernel",)),
    Need("/usr/include/libelf.h", "libelf-dev", ("kernel",)),
)
_KERNEL_SOURCE = "/usr/src/linux-source-6.1.tar.xz"
_UIDMAP = Need("newuidmap", "uidmap", ("images",))


def missing_needs(purposes: Collection[Purpose]) -> list[Need]:
    """What is not there of all that the purposes need. Looks at files only; takes well under a millisecond each."""
    needs = list(_NEEDS) if os.geteuid() == 0 else [*_NEEDS, _UIDMAP]
    if "kernel" in purposes and not Path(_KERNEL_SOURCE).exists():
        # the source is then taken out of its package, by mmdebstrap
        purposes = {*purposes, "images"}
    return [need for need in needs if set(need.purposes) & set(purposes) and not need.found()]


def install_packages(needs: Sequence[Need], *, step: Step | None = None) -> None:
    """Install the packages of `needs` with apt-get, as root or through `sudo -n`.

    SetupError says in one sentence what to install where apt or the rights are missing, or when something is still
    not there afterwards.
    """
    if not needs:
        return
    packages = sorted({need.package for need in needs})
    tools = ", ".join(Path(need.what).name for need in needs)
    command = f"apt-get install --no-install-recommends {' '.join(packages)}"
    if shutil.which("apt-get") is None:
        raise SetupError(
            f"these are needed and this system has no apt-get to install them with: {tools}",
            hint=f"install them with your own package manager; Debian's packages are {' '.join(packages)}",
        )
    prefix = _root_prefix()
    if prefix is None:
        raise SetupError(
            f"these are needed and installing them takes root: {tools}",
            hint=f"run `sudo {command}`, then the same again" if shutil.which("sudo") else f"as root: {command}",
        )
    if step is not None:
        step.detail(" ".join(packages))
    install = [*prefix, *_apt(), "install", "-y", "--no-install-recommends", *packages]
    try:
        _run(install, step)
    except SetupError:
        # most often the lists of packages are missing or old
        try:
            _update([*prefix, *_apt(), "update"], step)
            _run(install, step)
        except SetupError as error:
            raise SetupError(
                f"apt-get could not install {' '.join(packages)}: {error.message}", hint=f"as root: {command}"
            ) from error
    if left := [need for need in needs if not need.found()]:
        names = ", ".join(f"{need.what} (package {need.package})" for need in left)
        raise SetupError(f"installed, but still not there: {names}")


def _root_prefix() -> list[str] | None:
    """How to run apt as root, or None when there is no way without asking somebody."""
    settings = ["env", "DEBIAN_FRONTEND=noninteractive"]
    if os.geteuid() == 0:
        return settings
    if shutil.which("sudo") is None:
        return None
    try:
        run_tool(["sudo", "-n", "true"], timeout_s=10.0)
    except SetupError:
        return None
    return ["sudo", "-n", *settings]


def _apt() -> list[str]:
    return ["apt-get", "-q", "-o", f"DPkg::Lock::Timeout={_APT_LOCK_S}", "-o", "Dpkg::Use-Pty=0"]


def _update(argv: Sequence[str], step: Step | None) -> None:
    """As `_run`, but waits while somebody else updates: apt's own waiting is for the lock of installations only."""
    give_up_at = time.monotonic() + _APT_LOCK_S
    while True:
        try:
            _run(argv, step)
        except SetupError as error:
            if _LOCKED not in error.message or time.monotonic() >= give_up_at:
                raise
            if step is not None:
                step.detail("waiting for another apt-get to end")
            time.sleep(_LOCK_PAUSE_S)
        else:
            return


def _run(argv: Sequence[str], step: Step | None) -> None:
    run_tool(argv, timeout_s=_APT_TIMEOUT_S, on_line=None if step is None else lambda line: step.detail(line[:80]))
