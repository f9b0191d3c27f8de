"""Control groups of the VMMs: which hierarchy is usable here, what the jailer is told, and removal.

Three layouts exist: unified (v2), legacy (v1), and hybrid, where the controllers sit on v1 and v2 is almost empty.
What counts is where the memory and pids controllers are.
"""

from __future__ import annotations

import errno
import os
import time
from dataclasses import dataclass
from pathlib import Path

import anyio

from mayfly.errors import HostError

__all__ = ["CgroupLayout", "detect_cgroups", "read_cgroup_pids", "remove_cgroups"]

_NEEDED = ("memory", "pids")
_CPU = "cpu"
_CPU_PERIOD_US = 100_000
_CPU_SHARES = 1024
"""What a usual group has under the legacy hierarchy."""
_REMOVAL_DEADLINE_S = 2.0


@dataclass(frozen=True, slots=True)
class CgroupLayout:
    """`version` 1 or 2, or 0 where no controllers can be used; `mounts` maps a controller to its mount (v2: one)."""

    version: int
    mounts: dict[str, Path]
    has_cpu: bool = False

    def directories(self, group: str) -> list[Path]:
        """Every directory that the group named `group` has, over all hierarchies."""
        return [Path(name) for name in self.names(group)]

    def names(self, group: str) -> list[str]:
        """The same as plain strings, for where machines come and go by the hundred."""
        return sorted({f"{mount}/{group}" for mount in self.mounts.values()})

    @property
    def _memory_file(self) -> str:
        return "memory.max" if self.version == 2 else "memory.limit_in_bytes"

    def _cpu_quota(self, cpus: float) -> list[tuple[str, str]]:
        """Files and values that allow so many processors' time."""
        quota = int(cpus * _CPU_PERIOD_US)
        if self.version == 2:
            return [("cpu.max", f"{quota} {_CPU_PERIOD_US}")]
        return [("cpu.cfs_period_us", str(_CPU_PERIOD_US)), ("cpu.cfs_quota_us", str(quota))]

    def limit(self, group: str, *, memory_bytes: int, cpus: float) -> None:
        """Set the limits of a group that exists; nothing without controllers. HostError when one is not taken."""
        if self.version == 0:
            return
        unified = self.mounts.get("unified")
        _write(f"{unified or self.mounts['memory']}/{group}/{self._memory_file}", str(memory_bytes))
        if self.has_cpu:
            for file, value in self._cpu_quota(cpus):
                _write(f"{unified or self.mounts['cpu']}/{group}/{file}", value)

    def weigh(self, group: str, percent: int) -> None:
        """Set the share of busy processors that a group that exists gets beside others: 1 to 100, of a usual group's.

        Nothing where there is no cpu controller. HostError when it is not taken.
        """
        if self.version == 2 and self.has_cpu:
            _write(f"{self.mounts['unified']}/{group}/cpu.weight", str(percent))
        elif self.has_cpu:
            _write(f"{self.mounts['cpu']}/{group}/cpu.shares", str(percent * _CPU_SHARES // 100))

    def jailer_arguments(self, parent: str, *, memory_bytes: int, pids: int, cpus: float | None = None) -> list[str]:
        """The jailer's options that put a VMM into its own group with these limits.

        `cpus` is left out where the cpu controller is not there.
        """
        if self.version == 0:
            return []
        values = [f"{self._memory_file}={memory_bytes}", f"pids.max={pids}"]
        if cpus is not None and self.has_cpu:
            values += [f"{file}={value}" for file, value in self._cpu_quota(cpus)]
        options = ["--cgroup-version", str(self.version), "--parent-cgroup", parent]
        for value in values:
            options += ["--cgroup", value]
        return options


def _write(file: str, value: str) -> None:
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, value.encode())
        finally:
            os.close(descriptor)
    except OSError as error:
        raise HostError(f"cannot set {file}: {error.strerror}") from error


def detect_cgroups(mounts_file: Path = Path("/proc/self/mounts")) -> CgroupLayout:
    """Find where memory and pids are controlled. Reads the mount table only."""
    legacy: dict[str, Path] = {}
    unified: Path | None = None
    for line in mounts_file.read_text(errors="replace").splitlines():
        fields = line.split()
        if len(fields) < 4 or fields[2] not in ("cgroup", "cgroup2"):
            continue
        if fields[2] == "cgroup2":
            unified = unified or Path(fields[1])
            continue
        for option in fields[3].split(","):
            if option in (*_NEEDED, _CPU):
                legacy.setdefault(option, Path(fields[1]))
    if unified is not None and (controllers := _controllers(unified)).issuperset(_NEEDED):
        return CgroupLayout(2, {"unified": unified}, has_cpu=_CPU in controllers)
    if legacy.keys() >= set(_NEEDED):
        return CgroupLayout(1, legacy, has_cpu=_CPU in legacy)
    return CgroupLayout(0, {})


def _controllers(mount: Path) -> set[str]:
    try:
        return set((mount / "cgroup.controllers").read_text(errors="replace").split())
    except OSError:
        return set()


def read_cgroup_pids(layout: CgroupLayout, group: str) -> set[int]:
    """Pids of all processes in the group; empty when there is none."""
    found: set[int] = set()
    for directory in layout.names(group):
        try:
            with open(f"{directory}/cgroup.procs", "rb", buffering=0) as file:  # noqa: PTH123 - for each machine's end
                found.update(int(word) for word in file.readall().split())
        except OSError:
            continue
    return found


async def remove_cgroups(layout: CgroupLayout, group: str) -> None:
    """Remove the group everywhere. It must have no processes; HostError when it cannot be removed in 2 s."""
    deadline = time.monotonic() + _REMOVAL_DEADLINE_S
    for directory in layout.names(group):
        while not _try_rmdir(directory):
            if time.monotonic() > deadline:
                raise HostError(f"control group {directory} is still busy", phase="destroy")
            await anyio.sleep(0.005)  # the kernel releases an emptied group a moment after its last exit


def _try_rmdir(directory: str) -> bool:
    try:
        os.rmdir(directory)  # noqa: PTH106
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno == errno.EBUSY:
            return False
        raise HostError(f"control group {directory} cannot be removed: {error.strerror}", phase="destroy") from error
    return True
