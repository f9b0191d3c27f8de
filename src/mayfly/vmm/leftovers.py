"""What a node that died has left: found by its jails and control groups, killed and removed at the next start.

The node holds an exclusive lock on its state directory, so at its start every jail below it is a leftover.
A process is killed only when it is seen inside such a jail or such a control group, or is a jailer of this node's
that makes one there.
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio

from mayfly.errors import HostError
from mayfly.host.cgroups import read_cgroup_pids, remove_cgroups
from mayfly.host.process import adopt
from mayfly.vmm.jail import Jail

if TYPE_CHECKING:
    from collections.abc import Callable

    from mayfly.vmm.jail import JailerOptions

__all__ = ["Leftovers", "cgroup_ids", "jail_ids", "remove_leftovers", "remove_parents"]

_COMMAND_MAX_BYTES = 16 * 1024
_VM_ID = re.compile(r"^[A-Za-z0-9-]{1,64}$")
_DEATH_DEADLINE_S = 5.0
_LOOK_AGAIN_S = 0.05
_LOOKS_MAX = 100


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What was found and removed."""

    machines: tuple[str, ...]
    processes: int


async def remove_leftovers(options: JailerOptions) -> Leftovers:
    """Kill and remove everything below this node's jails and control group. HostError when something stays.

    Jailers at work come first, for each would make another machine; where anything was found, it is looked again.
    """
    machines: set[str] = set()
    processes = 0
    for _ in range(_LOOKS_MAX):
        jailers = await _kill_all(lambda: _jailers(options), "jailers")
        ids = jail_ids(options) | cgroup_ids(options)
        processes += jailers
        for vm_id in sorted(ids):
            processes += await _remove_one(Jail(options, vm_id, 0))
        machines |= ids
        if not ids and not jailers:
            return Leftovers(tuple(sorted(machines)), processes)
        await anyio.sleep(_LOOK_AGAIN_S)
    raise HostError(f"machines keep appearing below {options.jails}", phase="destroy")


async def _remove_one(jail: Jail) -> int:
    killed = await _kill_all(lambda: _inhabitants(jail), f"processes of the old machine {jail.vm_id}")
    await remove_cgroups(jail.options.cgroups, jail.cgroup)
    jail.remove()
    return killed


def remove_parents(options: JailerOptions) -> None:
    """At the end: the directories and control groups that only held machines, as far as they are empty."""
    for directory in (options.jails / options.firecracker.name, *options.cgroups.directories(options.parent_cgroup)):
        with contextlib.suppress(OSError):
            directory.rmdir()


def jail_ids(options: JailerOptions) -> set[str]:
    """Names of all jails below this node's directory."""
    try:
        names = os.listdir(options.jails / options.firecracker.name)
    except FileNotFoundError:
        return set()
    return {name for name in names if _VM_ID.match(name)}


def cgroup_ids(options: JailerOptions) -> set[str]:
    """Names of all control groups below this node's parent group."""
    found: set[str] = set()
    for directory in options.cgroups.directories(options.parent_cgroup):
        with contextlib.suppress(OSError):
            found.update(entry.name for entry in os.scandir(directory) if entry.is_dir() and _VM_ID.match(entry.name))
    return found


def _inhabitants(jail: Jail) -> set[int]:
    pids = read_cgroup_pids(jail.options.cgroups, jail.cgroup)
    if jail.root.exists():
        pids |= {int(name) for name in os.listdir("/proc") if name.isdigit() and jail.holds(int(name))}
    return pids


def _jailers(options: JailerOptions) -> set[int]:
    """Jailers that are making a jail below this node's directory, also those that have forked into theirs."""
    jails, jailer = os.fsencode(options.jails), os.path.realpath(options.jailer)
    found: set[int] = set()
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/{name}/exe") == jailer:  # noqa: PTH115 - for each process there is
                with open(f"/proc/{name}/cmdline", "rb") as file:  # noqa: PTH123
                    words = file.read(_COMMAND_MAX_BYTES).split(b"\0")
                if jails in words:
                    found.add(int(name))
    return found


async def _kill_all(find: Callable[[], set[int]], what: str) -> int:
    """Kill what is found until nothing is; how many there were. HostError when some do not end."""
    killed: set[int] = set()
    try:
        with anyio.fail_after(_DEATH_DEADLINE_S):
            while pids := find():
                for pid in pids:
                    with contextlib.suppress(HostError):
                        process = adopt(pid)
                        process.kill()
                        process.close()
                killed |= pids
                await anyio.sleep(0.01)
    except TimeoutError as error:
        raise HostError(f"{what} do not end", phase="destroy") from error
    return len(killed)
