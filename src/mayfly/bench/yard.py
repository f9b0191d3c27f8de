"""Where a benchmark's machines live: jails, control groups and user ids of its own, and the snapshot of its clones."""

from __future__ import annotations

import contextlib
import hashlib
import os
import resource
import secrets
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from mayfly.errors import HostError, PermissionDeniedError
from mayfly.host.locks import try_lock
from mayfly.host.process import become_subreaper
from mayfly.images.store import Store, remove_tree
from mayfly.model import HostInfo
from mayfly.node.parts import jailer_options, node_artefacts
from mayfly.pool.templates import settle
from mayfly.vmm.firecracker import FirecrackerLauncher, UidRange
from mayfly.vmm.janitor import janitor
from mayfly.vmm.launcher import MachineSpec
from mayfly.vmm.leftovers import remove_leftovers, remove_parents
from mayfly.vmm.probe import device_problem, probe_kvm

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from anyio.abc import TaskGroup

    from mayfly.bench.metrics import HostKind
    from mayfly.host.paths import StatePaths
    from mayfly.model import HostKind as NodeKind
    from mayfly.node.parts import Artefacts
    from mayfly.vmm.jail import JailerOptions
    from mayfly.vmm.machine import BootSource, FirecrackerMachine, SnapshotFiles

__all__ = ["Yard", "control_problem", "only_benchmark", "open_yard"]

_UID_BASE = 1_000_000
_UIDS = 65_536
_HALF_BOOTED_S = 0.5
"""So long a guest that will never run is given before its snapshot: its memory then has what the VMM put there."""
_STANDBY = 4


def control_problem() -> str | None:
    """Why no machines can be made here; None where they can."""
    if os.geteuid() != 0:
        return "making machines needs root: Firecracker's jailer does"
    return device_problem()


@dataclass(frozen=True, slots=True)
class Yard:
    """Makes machines that serve measuring only. Made by `open_yard`."""

    kind: HostKind
    mem_mib: int
    firecracker: str
    snapshot: SnapshotFiles
    source: BootSource
    options: JailerOptions
    launcher: FirecrackerLauncher
    """Keeps jailed VMMs ready where a node's does: not in an emulated host."""
    cold: FirecrackerLauncher
    """Makes everything at the moment it is asked for."""
    console: FirecrackerLauncher
    """The same, and its guests have a serial console."""
    booting: Callable[[BootSource], FirecrackerLauncher]
    """Makes a launcher like `cold` whose guests boot from other files, of this store."""
    store: Store

    @property
    def guests_run(self) -> bool:
        """Whether guests run here, or are only loaded."""
        return self.kind != "software KVM"

    def spec(self) -> MachineSpec:
        """Names a machine that has never been."""
        return MachineSpec(id=f"bench-{secrets.token_hex(8)}", mem_mib=self.mem_mib)

    async def load(self, snapshot: SnapshotFiles | None = None, *, cold: bool = False) -> FirecrackerMachine:
        """A clone, restored and paused."""
        launcher = self.cold if cold else self.launcher
        return await launcher.load(self.spec(), snapshot or self.snapshot)


@contextlib.asynccontextmanager
async def open_yard(
    paths: StatePaths, *, mem_mib: int, node_kind: NodeKind = "kvm", verify: bool = True
) -> AsyncIterator[Yard]:
    """A yard, of which nothing remains however the block ends.

    HostError when another benchmark runs or KVM is missing, SetupError when artefacts are.
    """
    if problem := control_problem():
        raise PermissionDeniedError(problem) if os.geteuid() else HostError(problem)
    _raise_limits()
    become_subreaper()
    store = Store(paths.make())
    artefacts = await anyio.to_thread.run_sync(lambda: node_artefacts(store, verify=verify))
    options = _options(paths, artefacts)
    with only_benchmark(paths) as lock:
        options.jails.mkdir(mode=0o700, exist_ok=True)
        await remove_leftovers(options)
        kind = await _kind(paths, options, artefacts, node_kind)
        directory = paths.build / f"bench-{os.getpid()}-{secrets.token_hex(4)}"
        directory.mkdir(mode=0o700)
        try:
            with janitor(options, lock):
                async with anyio.create_task_group() as group:
                    yard = await _furnish(
                        options, store, artefacts, group, directory, kind=kind, node_kind=node_kind, mem_mib=mem_mib
                    )
                    try:
                        yield yard
                    finally:
                        await yard.launcher.drain()
                    group.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await remove_leftovers(options)
                remove_parents(options)
                remove_tree(directory)
                with contextlib.suppress(OSError):
                    options.jails.rmdir()


async def _furnish(
    options: JailerOptions,
    store: Store,
    artefacts: Artefacts,
    group: TaskGroup,
    directory: Path,
    *,
    kind: HostKind,
    node_kind: NodeKind,
    mem_mib: int,
) -> Yard:
    source = artefacts.boot_source(node_kind)
    version = str(artefacts.version())
    info = HostInfo(kind=node_kind, firecracker=version)
    uids = UidRange(_UID_BASE, _UIDS)

    def booting(source: BootSource) -> FirecrackerLauncher:
        return FirecrackerLauncher(options, source, info, group, uids=uids)

    cold = booting(source)
    standby = 0 if node_kind == "emulated" else _STANDBY
    launcher = FirecrackerLauncher(options, source, info, group, uids=uids, standby=standby)
    snapshot = await _take_snapshot(cold, directory, mem_mib, boots=kind != "software KVM")
    launcher.fill()
    console = booting(replace(source, console=True))
    return Yard(kind, mem_mib, version, snapshot, source, options, launcher, cold, console, booting, store)


async def _take_snapshot(launcher: FirecrackerLauncher, directory: Path, mem_mib: int, *, boots: bool) -> SnapshotFiles:
    spec = MachineSpec(id=f"bench-tpl-{secrets.token_hex(6)}", mem_mib=mem_mib)
    machine = await (launcher.launch(spec) if boots else launcher.start(spec))
    try:
        await (settle(machine) if boots else anyio.sleep(_HALF_BOOTED_S))
        return await machine.snapshot(directory)
    finally:
        with anyio.CancelScope(shield=True):
            await machine.destroy()


def _options(paths: StatePaths, artefacts: Artefacts) -> JailerOptions:
    """The node's own, but for the places: a node of the same state directory may run meanwhile."""
    mark = hashlib.sha256(os.fsencode(paths.root)).hexdigest()[:8]
    return replace(jailer_options(paths, artefacts), jails=paths.root / "bench", parent_cgroup=f"mayfly-bench-{mark}")


async def _kind(paths: StatePaths, options: JailerOptions, artefacts: Artefacts, node_kind: NodeKind) -> HostKind:
    if node_kind == "emulated":
        return "emulated host"
    answer = await probe_kvm(options, artefacts.boot_source(node_kind), paths.root / "kvm.json")
    return "hardware KVM" if answer.usable else "software KVM"


@contextlib.contextmanager
def only_benchmark(paths: StatePaths) -> Iterator[Path]:
    """Hold this state directory's lock of benchmarks, and remove what a killed one left in `build`.

    HostError while another one has it.
    """
    file = paths.run / "bench.lock"
    lock = try_lock(file)
    if lock is None:
        raise HostError("another benchmark runs in this state directory", hint="wait for its end")
    try:
        for litter in paths.build.glob("bench-*"):
            remove_tree(litter)
        yield file
    finally:
        os.close(lock)


def _raise_limits() -> None:
    """Two thousand machines take more descriptors than a process is given by default."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
