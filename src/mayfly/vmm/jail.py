"""The jail of one VMM: its directory, what is linked into it, the jailer's command line, and its removal."""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mayfly.errors import DiskFullError, HostError, SetupError
from mayfly.host.paths import spread_directories
from mayfly.host.sparse import packed_size, unpack_sparse

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mayfly.host.cgroups import CgroupLayout

__all__ = ["SCRATCH_NAME", "Jail", "JailerOptions"]

SCRATCH_NAME = "scratch.img"
"""The scratch disk in the jail."""
_VMM_PIDS = 32
_VMM_OPEN_FILES = 256
_VMM_CPUS = 0.25
"""Beside one for each virtual processor: for the VMM's own threads, so that a busy guest is not slowed by its disk."""


@dataclass(frozen=True, slots=True)
class JailerOptions:
    """What all jails of a node share. `jails` and the store are on one file system, for hard links."""

    jailer: Path
    firecracker: Path
    jails: Path
    cgroups: CgroupLayout
    parent_cgroup: str
    vmm_overhead_mib: int = 96


@dataclass(frozen=True, slots=True)
class Jail:
    """One VMM's chroot. `vm_id` is at most 64 characters of letters, digits and `-`, and never used twice."""

    options: JailerOptions
    vm_id: str
    uid: int
    directory: Path = field(init=False)
    """What removal removes."""
    root: Path = field(init=False)
    """The chroot."""
    api_socket: Path = field(init=False)
    """Firecracker's API socket, seen from outside."""
    vsock: Path = field(init=False)
    """The Unix socket behind the guest's vsock device, seen from outside."""
    pid_file: Path = field(init=False)
    """Where the jailer writes the VMM's pid."""

    def __post_init__(self) -> None:
        name = self.options.firecracker.name
        set_once = object.__setattr__  # paths cost more to make than to keep
        set_once(self, "directory", self.options.jails / name / self.vm_id)
        set_once(self, "root", self.directory / "root")
        set_once(self, "api_socket", self.root / "api.sock")
        set_once(self, "vsock", self.root / "v.sock")
        set_once(self, "pid_file", self.root / f"{name}.pid")

    @property
    def cgroup(self) -> str:
        """Name of its control group under each hierarchy."""
        return f"{self.options.parent_cgroup}/{self.vm_id}"

    def make(self) -> None:
        """Create the chroot. HostError when there is one of this name already, DiskFullError without space."""
        try:
            if not self.directory.parent.is_dir():
                self.directory.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
                spread_directories(self.directory.parent)
            self.directory.mkdir(mode=0o755)
        except OSError as error:
            raise self._cannot_make(error) from error

    def link(self, files: Mapping[str, Path]) -> None:
        """Hard-link read-only files into the chroot, before its VMM starts or while it waits for its first request.

        HostError, SetupError or DiskFullError.
        """
        try:
            self.root.mkdir(mode=0o755, exist_ok=True)
            for name, source in files.items():
                os.link(source, f"{self.root}/{name}")
        except FileNotFoundError as error:
            raise SetupError(f"{error.filename} is missing", hint="run `mayfly setup`") from error
        except OSError as error:
            raise self._cannot_make(error) from error

    def _cannot_make(self, error: OSError) -> HostError | DiskFullError:
        if error.errno == errno.ENOSPC:
            return DiskFullError(f"no space left for a jail in {self.options.jails}", phase="launch")
        if error.errno == errno.EXDEV:
            return HostError("the store and the jails must be on one file system")
        return HostError(f"cannot make the jail {self.directory}: {error.strerror}")

    def add_scratch(self, pack: Path) -> None:
        """Give the jail a disk of its own, unpacked from `pack`, that its user alone may write.

        DiskFullError when it could not be filled; space is not set aside for it.
        """
        target = self.root / SCRATCH_NAME
        try:
            free, size = shutil.disk_usage(self.root).free, packed_size(pack)
            if free < size:
                raise DiskFullError(
                    f"no space for a scratch disk of {size >> 20} MiB: {free >> 20} MiB free", phase="launch"
                )
            unpack_sparse(pack, target)
            os.chown(target, self.uid, self.uid)
            target.chmod(0o600)
        except FileNotFoundError as error:
            raise SetupError(f"{error.filename} is missing", hint="run `mayfly setup`") from error
        except OSError as error:
            raise self._cannot_make(error) from error

    def command(self, *, mem_mib: int, vcpus: int = 1) -> list[str]:
        """The jailer's command line: own uid and gid, control group, pid namespace; no network device."""
        options = self.options
        limits = options.cgroups.jailer_arguments(
            options.parent_cgroup,
            memory_bytes=self._memory_bytes(mem_mib),
            pids=_VMM_PIDS,
            cpus=vcpus + _VMM_CPUS,
        )
        return [
            str(options.jailer),
            *("--id", self.vm_id),
            *("--exec-file", str(options.firecracker)),
            *("--uid", str(self.uid)),
            *("--gid", str(self.uid)),
            *("--chroot-base-dir", str(options.jails)),
            *limits,
            *("--resource-limit", f"no-file={_VMM_OPEN_FILES}"),
            "--new-pid-ns",
            "--",
            *("--api-sock", "/api.sock"),
            *("--level", "Warn"),
        ]

    def limit(self, *, mem_mib: int, vcpus: int) -> None:
        """Set the control group's limits for a guest of this size, whose VMM runs already. HostError."""
        self.options.cgroups.limit(self.cgroup, memory_bytes=self._memory_bytes(mem_mib), cpus=vcpus + _VMM_CPUS)

    def weigh(self, percent: int) -> None:
        """Set its share of busy processors, of a usual machine's. HostError."""
        self.options.cgroups.weigh(self.cgroup, percent)

    def _memory_bytes(self, mem_mib: int) -> int:
        return (mem_mib + self.options.vmm_overhead_mib) * 1024 * 1024

    def vmm_pid(self) -> int:
        """The VMM's pid as the jailer wrote it; HostError when the file is not there or holds no pid."""
        try:
            text = self.pid_file.read_text()[:32].strip()
            return int(text)
        except (OSError, ValueError) as error:
            raise HostError(f"the jailer left no pid file for {self.vm_id}") from error

    def holds(self, pid: int) -> bool:
        """Whether that process lives in this jail: its root directory is the chroot."""
        try:
            theirs, ours = os.stat(f"/proc/{pid}/root/"), os.stat(self.root)  # noqa: PTH116
        except OSError:
            return False
        return (theirs.st_dev, theirs.st_ino) == (ours.st_dev, ours.st_ino)

    def remove(self) -> None:
        """Remove the directory. Idempotent; HostError when something cannot be removed."""
        try:
            shutil.rmtree(self.directory)
        except FileNotFoundError:
            return
        except OSError as error:
            raise HostError(f"cannot remove the jail {self.directory}: {error.strerror}", phase="destroy") from error
