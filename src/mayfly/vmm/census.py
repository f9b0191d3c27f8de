"""What exists of machines on this host right now, counted from the kernel's and file system's own lists."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mayfly.host.cgroups import read_cgroup_pids
from mayfly.vmm.leftovers import cgroup_ids, jail_ids

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mayfly.vmm.jail import JailerOptions

__all__ = ["Census", "take_census"]


class Census(msgspec.Struct, frozen=True, kw_only=True):
    """Counts. `waiting` machines of the pool are left out of the others: with no execution in progress those are 0."""

    waiting: int
    jails: int
    cgroups: int
    vmm_processes: int
    mounts: int
    """Mounts below the jails, in the node's mount namespace."""
    node_fds: int
    node_threads: int
    node_rss_mib: float


def take_census(options: JailerOptions, waiting: frozenset[str] = frozenset()) -> Census:
    """Count everything that belongs to this node's machines, and what the node itself holds."""
    groups = cgroup_ids(options)
    running, idle = _pids(options, groups - waiting), _pids(options, waiting)
    running |= {int(name) for name in os.listdir("/proc") if name.isdigit() and _is_vmm(name, options)} - idle
    below = f" {options.jails}/"
    return Census(
        waiting=len(waiting),
        jails=len(jail_ids(options) - waiting),
        cgroups=len(groups - waiting),
        vmm_processes=len(running),
        mounts=sum(below in line for line in Path("/proc/self/mounts").read_text().splitlines()),
        node_fds=len(os.listdir("/proc/self/fd")),
        node_threads=len(os.listdir("/proc/self/task")),
        node_rss_mib=round(_rss_bytes() / 1024**2, 1),
    )


def _pids(options: JailerOptions, ids: Iterable[str]) -> set[int]:
    found: set[int] = set()
    for vm_id in ids:
        found |= read_cgroup_pids(options.cgroups, f"{options.parent_cgroup}/{vm_id}")
    return found


def _is_vmm(pid: str, options: JailerOptions) -> bool:
    """Whether the process runs a binary named as our Firecracker, in a control group of ours where there are any."""
    try:
        if Path(f"/proc/{pid}/exe").readlink().name != options.firecracker.name:
            return False
        groups = Path(f"/proc/{pid}/cgroup").read_text()
    except OSError:
        return False
    return options.cgroups.version == 0 or f"/{options.parent_cgroup}/" in groups


def _rss_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
