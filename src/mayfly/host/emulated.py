"""The emulated host from outside: bring it up, take it down, say how it is."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import msgspec

import mayfly
from mayfly.errors import EmulatedHostError
from mayfly.host.code import code_hash
from mayfly.host.drives import ensure_state_disk
from mayfly.host.locks import is_locked, lock_file
from mayfly.host.qemu import default_mem_mib
from mayfly.host.supervisor import Plan, Running
from mayfly.images.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mayfly.host.paths import StatePaths

__all__ = ["HostStatus", "down", "status", "up"]

_UP_DEADLINE_S = 200.0
_DOWN_DEADLINE_S = 40.0
_REPORT_MAX_BYTES = 64 * 1024
_STATE_KINDS = ("firecracker", "kernel", "image-python")


class HostStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How the emulated host of a state directory is."""

    up: bool
    current: bool = False
    """True when it runs the code that asks."""
    pid: int | None = None
    mem_mib: int | None = None
    version: str | None = None
    uptime_s: float | None = None
    disk_bytes: int = 0
    """What its disks take on the file system."""


def status(paths: StatePaths) -> HostStatus:
    """Look, and change nothing."""
    disk = sum(file.stat().st_blocks * 512 for file in paths.host.glob("state-*"))
    running = _running(paths)
    if running is None:
        return HostStatus(up=False, disk_bytes=disk)
    return HostStatus(
        up=True,
        current=running.code_hash == code_hash(),
        pid=running.pid,
        mem_mib=running.mem_mib,
        version=running.version,
        uptime_s=round(max(0.0, time.time() - running.started), 1),
        disk_bytes=disk,
    )


def up(
    paths: StatePaths,
    on_progress: Callable[[str], None] = lambda _: None,
    *,
    mem_mib: int | None = None,
    idle_exit_s: float = 900.0,
    node: Mapping[str, int] | None = None,
) -> HostStatus:
    """Make sure that an emulated host with this code runs; one with other code is replaced.

    `node` holds settings for the node in it: `pool_loaded`, `pool_primed`, `templates_mib`.

    Returns once its node answers. SetupError when artefacts are missing, EmulatedHostError when it does not start.
    """
    paths.make()
    try:
        with lock_file(paths.run / "up.lock", timeout_s=_UP_DEADLINE_S):
            now = status(paths)
            if now.up and now.current:
                return now
            if now.up:
                on_progress("replacing an emulated host that runs other code")
                _stop(paths)
            _start(paths, _plan(paths, mem_mib or default_mem_mib(), idle_exit_s, node or {}), on_progress)
            return status(paths)
    except TimeoutError as error:
        raise EmulatedHostError(f"another start of the emulated host is taking too long: {error}") from error


def down(paths: StatePaths) -> bool:
    """Take it down in an orderly way; False when none ran. EmulatedHostError when it does not end."""
    with lock_file(paths.run / "up.lock", timeout_s=_UP_DEADLINE_S):
        return _stop(paths)


def _running(paths: StatePaths) -> Running | None:
    """The supervisor's own words, believed only while it holds its lock."""
    if not is_locked(paths.run / "node.lock"):
        return None
    try:
        return msgspec.json.decode((paths.run / "host.json").read_bytes()[:4096], type=Running)
    except (OSError, msgspec.DecodeError):
        return None


def _plan(paths: StatePaths, mem_mib: int, idle_exit_s: float, node: Mapping[str, int]) -> Plan:
    store = Store(paths)
    machine = store.current("emulated-host")
    store.verify(machine)
    seeds = [store.current(kind) for kind in _STATE_KINDS]
    later = [store.current(kind) for kind in _later_kinds(paths)]
    for seed in (*seeds, *later):
        store.verify(seed)
    return Plan(
        kernel=str(machine.path / "vmlinuz"),
        initrd=str(machine.path / "initrd"),
        root=str(machine.path / "root.ext4"),
        state_disk=str(ensure_state_disk(paths, [seed.path for seed in seeds], [seed.path for seed in later])),
        mem_mib=mem_mib,
        idle_exit_s=idle_exit_s,
        node=dict(node),
        code_hash=code_hash(),
        version=mayfly.__version__,
        guest_console=os.environ.get("MAYFLY_GUEST_CONSOLE") == "1",
    )


def _later_kinds(paths: StatePaths) -> list[str]:
    """The guest images that were built beside the one that every host has."""
    found = sorted(link.parent.name for link in paths.store.glob("image-*/current"))
    return [kind for kind in found if kind not in _STATE_KINDS]


def _start(paths: StatePaths, plan: Plan, on_progress: Callable[[str], None]) -> None:
    with (paths.run / "supervisor.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mayfly.host.supervisor", str(paths.root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd="/",
            start_new_session=True,
        )
    try:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(msgspec.json.encode(plan))  # type: ignore[union-attr]
        process.stdin.close()  # type: ignore[union-attr]
        _follow(process, on_progress)
    except BaseException:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_DOWN_DEADLINE_S)
        raise
    finally:
        process.stdout.close()  # type: ignore[union-attr]
        process.returncode = process.returncode if process.returncode is not None else 0  # it lives on without us


def _follow(process: subprocess.Popen[bytes], on_progress: Callable[[str], None]) -> None:
    """Read the supervisor's report until it says `ready`."""
    descriptor = process.stdout.fileno()  # type: ignore[union-attr]
    deadline = time.monotonic() + _UP_DEADLINE_S
    pending, seen = b"", 0
    while seen < _REPORT_MAX_BYTES:
        readable, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
        if not readable:
            raise EmulatedHostError(f"the emulated host was not up within {_UP_DEADLINE_S:g} s")
        data = os.read(descriptor, 4096)
        if not data:
            break
        seen += len(data)
        *lines, pending = (pending + data).split(b"\n")
        for line in lines:
            word, _, text = line.decode("utf-8", "replace").partition(" ")
            if word == "ready":
                return
            if word == "failed":
                raise EmulatedHostError(f"the emulated host did not start: {text}")
            on_progress(text)
    raise EmulatedHostError("the emulated host's supervisor ended without a word")


def _stop(paths: StatePaths) -> bool:
    running = _running(paths)
    if running is None:
        return False
    try:
        descriptor = os.pidfd_open(running.pid)
    except ProcessLookupError:
        return False
    try:
        if not is_locked(paths.run / "node.lock"):
            return False
        signal.pidfd_send_signal(descriptor, signal.SIGTERM)
        ended, _, _ = select.select([descriptor], [], [], _DOWN_DEADLINE_S)
        if not ended:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            ended, _, _ = select.select([descriptor], [], [], 5.0)
        if not ended:
            raise EmulatedHostError(f"the emulated host's supervisor {running.pid} does not end")
    finally:
        os.close(descriptor)
    return True
