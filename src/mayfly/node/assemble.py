"""A node put together on this machine: artefacts checked, leftovers of a dead node removed, parts started in order."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import msgspec
import structlog

import mayfly
from mayfly.errors import HostError, PermissionDeniedError
from mayfly.host.locks import try_lock
from mayfly.host.process import become_subreaper
from mayfly.images.store import Store
from mayfly.model import HostInfo, Limits
from mayfly.node.admission import Admission
from mayfly.node.gate import Gate, load_policies
from mayfly.node.parts import DEFAULT_IMAGE, boot_sources, jailer_options, node_artefacts
from mayfly.node.sandboxes import open_sandboxes
from mayfly.node.scanner import open_scanner
from mayfly.node.service import Node
from mayfly.node.store import ExecutionStore
from mayfly.node.templates import NodeTemplates
from mayfly.pool.pool import Pool
from mayfly.pool.shelf import PoolTargets
from mayfly.pool.size import Size
from mayfly.pool.templates import Templates
from mayfly.vmm.census import take_census
from mayfly.vmm.firecracker import FirecrackerLauncher, UidRange
from mayfly.vmm.janitor import janitor
from mayfly.vmm.leftovers import remove_leftovers, remove_parents
from mayfly.vmm.versions import check_version

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping
    from pathlib import Path

    from anyio.abc import TaskGroup

    from mayfly.host.paths import StatePaths
    from mayfly.model import HostKind
    from mayfly.node.parts import Artefacts
    from mayfly.node.scanner import Scanner
    from mayfly.scan.policy import Policy
    from mayfly.vmm.jail import JailerOptions

__all__ = ["NodeOptions", "open_node"]

_log = structlog.get_logger("mayfly.node")

_RESERVED_MIB = 512


class NodeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a node is to be. `mem_mib` is what its machines may have together; None is all but 512 MiB."""

    kind: HostKind
    code_hash: str = ""
    mem_mib: int | None = None
    max_concurrent: int = 8
    uid_base: int = 900_000
    uid_count: int = 4096
    agent_deadline_s: float = 60.0
    scan_deadline_s: float = 10.0
    verify: bool = True
    """Compare every artefact with its hash before use; the emulated host's were compared outside."""
    console: bool = False
    policies: tuple[str, ...] | None = None
    """Names of the policies that callers may ask for; None allows all there are."""
    pool_loaded: int = 2
    pool_primed: int = 1
    templates_mib: int = 4096
    """Disk space that templates may take; those used longest ago go first."""
    standby: int = 2
    """Jailed VMMs that are kept started for restores to come; in the emulated host none, its processors are dear."""


@contextlib.asynccontextmanager
async def open_node(paths: StatePaths, options: NodeOptions, *, files: tuple[Path, ...] = ()) -> AsyncIterator[Node]:
    """Start a node that serves this state directory alone; everything of it is gone after the block.

    Should the node be killed, a janitor removes its machines and `files`. HostError when another node has the
    directory or rights are missing, SetupError when artefacts are.
    """
    _require_rights()
    with _only_node(paths):
        become_subreaper()
        store = Store(paths)
        artefacts = await anyio.to_thread.run_sync(lambda: node_artefacts(store, verify=options.verify))
        jailer = jailer_options(paths, artefacts)
        leftovers = await remove_leftovers(jailer)
        if leftovers.machines:
            _log.warning("removed what a dead node left", machines=leftovers.machines, processes=leftovers.processes)
        policies = load_policies(paths.root / "policies", options.policies)
        async with anyio.create_task_group() as group, open_scanner(deadline_s=options.scan_deadline_s) as scanner:
            with janitor(jailer, paths.run / "node.lock", files), ExecutionStore(paths.database) as record:
                launcher = _launcher(jailer, artefacts, store, options, group)
                admission = _admission(options)
                templates = _templates(launcher, artefacts, store, options)
                targets = PoolTargets(loaded=options.pool_loaded, primed=options.pool_primed)
                pool = Pool(launcher, templates, targets, admission.budget)
                await _settle_templates(templates, pool)
                launcher.fill()
                group.start_soon(pool.fill)
                gate = _gate(scanner, artefacts, policies)
                named = NodeTemplates(templates, pool, admission, check_image=gate.manifest)
                try:
                    async with open_sandboxes(pool, gate, admission, paths.sandboxes, templates=named) as sandboxes:
                        node = Node(
                            pool,
                            gate,
                            record,
                            admission,
                            version=mayfly.__version__,
                            code_hash=options.code_hash,
                            census=lambda: msgspec.to_builtins(take_census(jailer, launcher.jails_of(pool.held()))),
                            templates=named,
                        )
                        node.sandboxes = sandboxes
                        try:
                            yield node
                        finally:
                            node.drain()
                finally:
                    with anyio.CancelScope(shield=True):
                        await pool.drain()
                        await launcher.drain()
                        await remove_leftovers(jailer)
                        remove_parents(jailer)
                    group.cancel_scope.cancel()


async def _settle_templates(templates: Templates, pool: Pool) -> None:
    """Remove what killed builds left, say what does not fit, and want the usual size from the start."""
    if swept := await anyio.to_thread.run_sync(templates.sweep):
        _log.warning("removed half-made templates of killed nodes", count=swept)
    for warning in pool.warnings:
        _log.warning(warning)
    usual = Size(Limits().mem_mib, Limits().vcpus)
    pool.want(usual)
    await templates.at_hand(usual)


def _gate(scanner: Scanner, artefacts: Artefacts, policies: Mapping[str, Policy]) -> Gate:
    manifests = {name: artefacts.manifest(name) for name in artefacts.images}
    return Gate(scanner, manifests[DEFAULT_IMAGE], policies, manifests)


def _require_rights() -> None:
    if os.geteuid() != 0:
        raise PermissionDeniedError("a node needs root: Firecracker's jailer does", hint="or use the emulated host")
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        raise HostError("/dev/kvm cannot be opened", hint="load the kvm modules, or use the emulated host")


@contextlib.contextmanager
def _only_node(paths: StatePaths) -> Iterator[None]:
    lock = try_lock(paths.run / "node.lock")
    if lock is None:
        raise HostError(f"another node already serves {paths.root}")
    try:
        yield
    finally:
        os.close(lock)


def _launcher(
    jailer: JailerOptions, artefacts: Artefacts, store: Store, options: NodeOptions, group: TaskGroup
) -> FirecrackerLauncher:
    version = artefacts.version()
    warnings = list(check_version(version))
    if jailer.cgroups.version == 0:
        warnings.append("no control groups with memory and pids: the host's own limits are not in force")
    kernel, image = artefacts.names()
    return FirecrackerLauncher(
        jailer,
        artefacts.boot_source(options.kind, console=options.console),
        HostInfo(kind=options.kind, firecracker=str(version), kernel=kernel, image=image, warnings=tuple(warnings)),
        group,
        uids=UidRange(options.uid_base, options.uid_count),
        agent_deadline_s=options.agent_deadline_s,
        sources=boot_sources(artefacts, store, options.kind, console=options.console),
        standby=0 if options.kind == "emulated" else options.standby,
    )


def _templates(launcher: FirecrackerLauncher, artefacts: Artefacts, store: Store, options: NodeOptions) -> Templates:
    return Templates(
        launcher,
        store,
        identity=artefacts.keys,
        budget_bytes=options.templates_mib << 20,
        verify=options.verify,
    )


def _admission(options: NodeOptions) -> Admission:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // (1024 * 1024)
    memory = options.mem_mib if options.mem_mib is not None else max(256, total - _RESERVED_MIB)
    return Admission(mem_mib=memory, vcpus=min(8, os.cpu_count() or 1), machines=options.max_concurrent)
