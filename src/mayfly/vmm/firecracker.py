"""The launcher that is Firecracker."""

from __future__ import annotations

import contextlib
import secrets
from collections import deque
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import msgspec
import structlog

from mayfly.errors import AgentLostError, CapacityError, MayflyError, VmmTimeoutError
from mayfly.guest.calls import ping
from mayfly.guest.link import open_link
from mayfly.host.tasks import single_error
from mayfly.vmm.jail import Jail, JailerOptions
from mayfly.vmm.launcher import MachineSpec
from mayfly.vmm.machine import BootSource, FirecrackerMachine, SnapshotFiles
from mayfly.vmm.versions import OLDEST_VERSION, parse_version

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from anyio.abc import TaskGroup

    from mayfly.model import HostInfo, HostKind

__all__ = ["FirecrackerLauncher", "UidRange"]

_log = structlog.get_logger("mayfly.vmm")


class UidRange:
    """User ids for VMMs, one each; given back when the machine is gone."""

    def __init__(self, base: int, count: int) -> None:
        self._free = list(range(base + count - 1, base - 1, -1))

    def take(self) -> int:
        """A free id. CapacityError when all are in use."""
        if not self._free:
            raise CapacityError("all user ids for machines are in use")
        return self._free.pop()

    def give_back(self, uid: int) -> None:
        """Return an id at the far end, so that it rests as long as possible."""
        self._free.insert(0, uid)


class FirecrackerLauncher:
    """Makes jailed Firecracker machines. `group` runs their watchers and outlives every machine.

    `sources` gives what machines of an image with a scratch disk of so many MiB start from, or raises SetupError; it
    may block when there are MiB. Without it all start from `source`.

    So many jailed VMMs stand by, started and connected, for the restores to come; their places are filled again in
    the background, one at a time. `drain` removes them.
    """

    def __init__(
        self,
        options: JailerOptions,
        source: BootSource,
        info: HostInfo,
        group: TaskGroup,
        *,
        uids: UidRange,
        agent_deadline_s: float = 60.0,
        sources: Callable[[str, int], BootSource] | None = None,
        standby: int = 0,
    ) -> None:
        self.kind: HostKind = info.kind
        self.source = source
        self._options = options
        self._info = info
        self._group = group
        self._uids = uids
        self._agent_deadline_s = agent_deadline_s
        self._sources = sources
        self.version = parse_version(info.firecracker) if info.firecracker else OLDEST_VERSION
        self._jails: dict[str, str] = {}
        """Jails that have another name than their machine, since they were there before it."""
        self._standby = _Standby(self._new_standby, standby, group)

    def describe(self, image: str = "python") -> HostInfo:
        """See `Launcher.describe`."""
        name = self.source.name if self._sources is None else self._sources(image, 0).name
        return msgspec.structs.replace(self._info, image=name) if name else self._info

    async def _source(self, spec: MachineSpec, *, scratch: bool) -> BootSource:
        """What a machine of this specification starts from; an empty disk may have to be made for it first."""
        if self._sources is None:
            return self.source
        if not (scratch and spec.scratch_mib):
            return self._sources(spec.image, 0)
        return await anyio.to_thread.run_sync(self._sources, spec.image, spec.scratch_mib)

    async def launch(self, spec: MachineSpec) -> FirecrackerMachine:
        """Boot, and return once the agent has answered. See `Launcher.launch` for what failures leave: nothing."""
        async with self._making(spec) as machine:
            await machine.boot(await self._source(spec, scratch=True))
            await self.first_answer(machine)
            return machine

    async def load(self, spec: MachineSpec, snapshot: SnapshotFiles) -> FirecrackerMachine:
        """Restore a snapshot, and return it paused. On failure nothing of it remains."""
        source = await self._source(spec, scratch=False)
        waiting = self._standby.take()
        if waiting is None:
            async with self._making(spec) as machine:
                await machine.load(source, snapshot, self.version)
        else:
            waiting.assign(spec)
            self._jails[spec.id] = waiting.jail_id
            async with _destroyed_on_failure(waiting) as machine:
                await machine.load(source, snapshot, self.version)
        self._standby.fill()
        return machine

    async def start(self, spec: MachineSpec) -> FirecrackerMachine:
        """Boot, and return as soon as its processors have been started: its agent may never answer."""
        async with self._making(spec) as machine:
            await machine.boot(await self._source(spec, scratch=True))
            return machine

    def fill(self) -> None:
        """Have VMMs stand by from now on."""
        self._standby.fill()

    def jails_of(self, machine_ids: frozenset[str]) -> frozenset[str]:
        """Names of the jails of these machines, and of those that stand by."""
        ours = {self._jails.get(machine_id, machine_id) for machine_id in machine_ids}
        return frozenset(ours | self._standby.jail_ids())

    async def filled(self) -> None:
        """Wait until nothing is being made ahead, because all places are filled or because it failed."""
        await self._standby.idle()

    async def drain(self) -> None:
        """Remove what stands by. Nothing is made ahead from now on."""
        await self._standby.drain()

    async def first_answer(self, machine: FirecrackerMachine) -> None:
        """Wait for the agent's answer, or for the VMM's end, whichever comes first."""
        with single_error():
            async with anyio.create_task_group() as group:
                group.start_soon(machine.vmm.fail_at_exit, "before its guest's agent answered")
                await self._ping(machine)
                group.cancel_scope.cancel()

    @contextlib.asynccontextmanager
    async def _making(self, spec: MachineSpec) -> AsyncIterator[FirecrackerMachine]:
        """A machine in the making: destroyed when the block fails or is cancelled."""
        async with _destroyed_on_failure(self._new(spec)) as machine:
            yield machine

    def _new(self, spec: MachineSpec) -> FirecrackerMachine:
        uid = self._uids.take()
        jail = Jail(self._options, spec.id, uid)

        def release() -> None:
            self._uids.give_back(uid)
            self._jails.pop(machine.id, None)

        machine = FirecrackerMachine(jail, spec, self._group, release)
        return machine

    def _new_standby(self) -> FirecrackerMachine:
        return self._new(MachineSpec(id=f"standby-{secrets.token_hex(8)}", mem_mib=0))

    async def _ping(self, machine: FirecrackerMachine) -> None:
        try:
            async with open_link(machine.vsock_path, deadline_s=self._agent_deadline_s) as link:
                await ping(link)
        except (AgentLostError, VmmTimeoutError) as error:
            words = machine.last_words()
            raise VmmTimeoutError(
                f"the guest's agent did not answer within {self._agent_deadline_s:g} s: {error}"
                + (f"; Firecracker said: {words}" if words else "")
            ) from error


class _Standby:
    """Jailed VMMs that wait for a guest."""

    def __init__(self, new: Callable[[], FirecrackerMachine], count: int, group: TaskGroup) -> None:
        self._new = new
        self._count = count
        self._group = group
        self._waiting: deque[FirecrackerMachine] = deque()
        self._made: set[str] = set()
        self._filling: anyio.CancelScope | None = None
        self._idle = anyio.Event()
        self._idle.set()

    def jail_ids(self) -> frozenset[str]:
        return frozenset(self._made | {machine.jail_id for machine in self._waiting})

    def take(self) -> FirecrackerMachine | None:
        while self._waiting:
            machine = self._waiting.popleft()
            if not machine.exited.is_set():
                return machine
            _log.warning("a VMM that stood by had died", id=machine.jail_id, words=machine.last_words())
            self._group.start_soon(_remove, machine)
        return None

    def fill(self) -> None:
        if self._filling is None and len(self._waiting) < self._count:
            self._filling, self._idle = anyio.CancelScope(), anyio.Event()
            self._group.start_soon(self._fill, self._filling)

    async def idle(self) -> None:
        await self._idle.wait()

    async def drain(self) -> None:
        self._count = 0
        if self._filling is not None:
            self._filling.cancel()
        await self._idle.wait()
        while self._waiting:
            await _remove(self._waiting.popleft())

    async def _fill(self, scope: anyio.CancelScope) -> None:
        """One after the other. What goes wrong here is said by the restore that then has to make its own."""
        try:
            with scope:
                while len(self._waiting) < self._count:
                    await self._make_one()
        except (MayflyError, OSError) as error:  # a full disk comes as either
            _log.warning("no VMM stands by", error=str(error))
        finally:
            self._filling = None
            self._idle.set()

    async def _make_one(self) -> None:
        machine = self._new()
        self._made.add(machine.jail_id)
        try:
            async with _destroyed_on_failure(machine):
                await machine.stand_by()
            self._waiting.append(machine)
        finally:
            self._made.discard(machine.jail_id)


@contextlib.asynccontextmanager
async def _destroyed_on_failure(machine: FirecrackerMachine) -> AsyncIterator[FirecrackerMachine]:
    try:
        yield machine
    except BaseException:
        await _remove(machine)
        raise


async def _remove(machine: FirecrackerMachine) -> None:
    with anyio.CancelScope(shield=True), contextlib.suppress(MayflyError):
        await machine.destroy()
