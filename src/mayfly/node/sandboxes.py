"""The sandboxes of a node: made, found, ended by their times, and recorded."""

from __future__ import annotations

import contextlib
import secrets
import time
from typing import TYPE_CHECKING

import anyio
import structlog

from mayfly.errors import (
    CapacityError,
    InvalidRequestError,
    MayflyError,
    NotFoundError,
    SandboxEndedError,
    SandboxLostError,
)
from mayfly.guest.sandbox import Guest
from mayfly.host.tasks import single_error
from mayfly.node.sandbox import Sandbox, as_lost
from mayfly.node.sandbox_machine import machine_wish
from mayfly.node.sandbox_runs import Runs
from mayfly.node.sandbox_store import SandboxStore
from mayfly.pool.greeting import greet_machine
from mayfly.sandbox_model import SandboxId
from mayfly.vmm.launcher import MachineSpec

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from anyio.abc import TaskGroup

    from mayfly.node.admission import Admission
    from mayfly.node.gate import Gate
    from mayfly.node.sandbox_machine import MachineWish, TemplateIndex
    from mayfly.sandbox_model import CreateSandbox, SandboxInfo
    from mayfly.vmm.launcher import Launcher, Machine

__all__ = ["Sandboxes", "open_sandboxes"]

_log = structlog.get_logger("mayfly.node")

_ENDED_KEPT = 50
"""Sandboxes that ended are remembered whole, with their logs, until so many others have ended."""


class Sandboxes:
    """Makes sandboxes and takes each to its end. Made by `open_sandboxes`."""

    def __init__(
        self,
        launcher: Launcher,
        gate: Gate,
        admission: Admission,
        store: SandboxStore,
        group: TaskGroup,
        *,
        templates: TemplateIndex | None,
        guest_of: Callable[[Path], Guest],
    ) -> None:
        self.gate = gate
        self.runs = Runs(gate, group)
        self.last_active = time.monotonic()
        self._launcher = launcher
        self._admission = admission
        self._store = store
        self._group = group
        self._templates = templates
        self._guest_of = guest_of
        self._known: dict[SandboxId, Sandbox] = {}
        self._stopped: str | None = None

    @property
    def count(self) -> int:
        """Sandboxes that hold a machine, or wait for one."""
        return sum(not sandbox.over.is_set() for sandbox in self._known.values())

    async def create(self, request: CreateSandbox) -> SandboxInfo:
        """Make a sandbox and wait until code can be run in it. Cancelling takes it away again.

        InvalidRequestError for what this node never has, CapacityError when it is full, and what a launch raises.
        """
        wish = await machine_wish(request, self._templates)
        self._check(request, wish)
        host = self._launcher.describe(wish.image)
        sandbox = Sandbox(SandboxId(f"sb-{secrets.token_hex(10)}"), request, wish, host)
        self._known[sandbox.id] = sandbox
        self._group.start_soon(self._live, sandbox)
        try:
            await sandbox.ready.wait()
        except BaseException:
            sandbox.end("its caller went away while it was made")
            raise
        if sandbox.ending:
            self._known.pop(sandbox.id, None)
            raise sandbox.failure or sandbox.ended_error()
        return sandbox.info()

    def get(self, sandbox_id: SandboxId) -> Sandbox:
        """A sandbox that runs; NotFoundError, or SandboxEndedError with the reason."""
        sandbox = self._known.get(sandbox_id)
        if sandbox is not None:
            return sandbox
        info = self._store.get(sandbox_id)
        if info is None:
            raise NotFoundError(f"there is no sandbox {sandbox_id} here", field="id")
        raise _ended(info)

    def info(self, sandbox_id: SandboxId) -> SandboxInfo:
        """What is known of a sandbox, also after its end. NotFoundError."""
        sandbox = self._known.get(sandbox_id)
        info = self._store.get(sandbox_id) if sandbox is None else sandbox.info()
        if info is None:
            raise NotFoundError(f"there is no sandbox {sandbox_id} here", field="id")
        return info

    def list(self) -> list[SandboxInfo]:
        """The newest first; those that run, and those that ended not long ago."""
        return [self._known[info.id].info() if info.id in self._known else info for info in self._store.latest()]

    async def kill(self, sandbox_id: SandboxId, reason: str = "it was killed") -> SandboxInfo:
        """End a sandbox and wait until nothing of it is left. One that has ended stays as it is."""
        sandbox = self._known.get(sandbox_id)
        if sandbox is not None:
            sandbox.end(reason)
            await sandbox.over.wait()
        return self.info(sandbox_id)

    def stop(self, reason: str) -> None:
        """End all of them, and make no more."""
        self._stopped = reason
        for sandbox in self._known.values():
            sandbox.end(reason)

    async def wait_over(self) -> None:
        """Returns when every sandbox has ended."""
        for sandbox in list(self._known.values()):
            await sandbox.over.wait()

    def _check(self, request: CreateSandbox, wish: MachineWish) -> None:
        if self._stopped is not None:
            raise CapacityError("the node is shutting down", retry_after_s=5.0)
        self.gate.manifest(wish.image)
        if request.limits.cpu_s is not None:
            raise InvalidRequestError(
                "limits.cpu_s is kept for programs only; timeout_s bounds a sandbox", field="limits.cpu_s"
            )
        self._admission.check(wish.limits)
        self.gate.policy(request.policy)

    async def _live(self, sandbox: Sandbox) -> None:
        """All of a sandbox's life. Nothing of it is left when this returns, however that comes."""
        try:
            with sandbox.making:
                async with self._admission.slot(sandbox.limits, image=sandbox.image):
                    await self._in_machine(sandbox)
        except MayflyError as error:
            self._failed(sandbox, error)
        except Exception as error:  # noqa: BLE001 - what breaks one sandbox must not end the node
            _log.exception("sandbox broke", id=sandbox.id)
            self._failed(sandbox, MayflyError(f"internal error: {type(error).__name__}", phase="launch"))
        finally:
            sandbox.end("the node was stopped")
            sandbox.ready.set()
            if sandbox.begun:
                self._record(sandbox)
            sandbox.over.set()
            self._forget_old()
            self.last_active = time.monotonic()

    async def _in_machine(self, sandbox: Sandbox) -> None:
        started = time.perf_counter()
        machine = await self._launcher.launch(MachineSpec.of(sandbox.id, sandbox.limits, image=sandbox.image))
        sandbox.stage("launch", started)
        guest = self._guest_of(machine.vsock_path)
        try:
            with single_error():
                async with anyio.create_task_group() as group:
                    group.start_soon(_watch, machine, sandbox)
                    await self._make_ready(sandbox, machine, guest)
                    await sandbox.wait_end()
                    group.cancel_scope.cancel()
        finally:
            if sandbox.ready.is_set():
                sandbox.end("the node was stopped")
            with anyio.CancelScope(shield=True):
                await guest.spare.aclose()
                await machine.destroy()

    async def _make_ready(self, sandbox: Sandbox, machine: Machine, guest: Guest) -> None:
        started = time.perf_counter()
        if not machine.greeted:
            await greet_machine(machine)
        sandbox.stage("greet", started)
        started = time.perf_counter()
        await sandbox.context_for(guest, None, None)
        sandbox.stage("context", started)
        if not sandbox.ending:
            self._record(sandbox, must=True)
            sandbox.begin(guest)
            _log.info("sandbox", id=sandbox.id, ms={stage.name: round(stage.ms) for stage in sandbox.stages})

    def _failed(self, sandbox: Sandbox, error: MayflyError) -> None:
        _log.warning("sandbox failed", id=sandbox.id, code=error.code, error=str(error))
        error.sandbox_id = sandbox.id
        if sandbox.ready.is_set():  # it ended all right, and something of it is left
            sandbox.log.add("sandbox", str(error))
        else:
            sandbox.end(f"it could not be made: {error}", lost=True)
            sandbox.failure = error

    def _record(self, sandbox: Sandbox, *, must: bool = False) -> None:
        try:
            self._store.put(sandbox.info())
        except MayflyError as error:
            if must:
                raise
            _log.warning("sandbox not recorded", id=sandbox.id, error=str(error))

    def _forget_old(self) -> None:
        over = [sandbox for sandbox in self._known.values() if sandbox.over.is_set()]
        for sandbox in over[:-_ENDED_KEPT]:
            del self._known[sandbox.id]


def _ended(info: SandboxInfo) -> MayflyError:
    kind = SandboxLostError if info.state == "lost" else SandboxEndedError
    return kind(f"sandbox {info.id} has ended: {info.reason}", field="id", sandbox_id=info.id)


async def _watch(machine: Machine, sandbox: Sandbox) -> None:
    await machine.exited.wait()
    words = machine.last_words().strip().splitlines()
    sandbox.end(f"its microVM ended{': ' + words[-1][:200] if words else ''}", lost=True)


@contextlib.asynccontextmanager
async def open_sandboxes(
    launcher: Launcher,
    gate: Gate,
    admission: Admission,
    database: Path,
    *,
    templates: TemplateIndex | None = None,
    guest_of: Callable[[Path], Guest] = Guest,
) -> AsyncIterator[Sandboxes]:
    """The sandboxes of a node, for the block; all are ended at its end. `database` keeps what is known of them.

    `templates` are those that a sandbox may name, None where there are none; `guest_of` gives what speaks to the agent
    behind a machine's vsock.
    """
    with SandboxStore(database) as store:
        for info in store.running():
            store.put(as_lost(info, "the node that held it ended without ending it"))
        async with anyio.create_task_group() as group:
            sandboxes = Sandboxes(launcher, gate, admission, store, group, templates=templates, guest_of=guest_of)
            try:
                yield sandboxes
            finally:
                sandboxes.stop("the node was stopped")
                with anyio.CancelScope(shield=True):
                    await sandboxes.wait_over()
                group.cancel_scope.cancel()
