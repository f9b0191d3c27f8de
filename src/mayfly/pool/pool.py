"""Clones made ahead of need, by size: a claim takes one that waits, and the place is filled again in the background.

Filling goes on in the pauses between launches, one clone at a time and at a bounded rate, and the sizes take turns;
where there are no pauses a step is taken now and then all the same (`mayfly.pool.pace`). A burst larger than what waits
falls through to direct restores, and a size without a template is booted. What waits counts against the node's memory
and is given up when executions need it.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import anyio
import msgspec
import structlog

from mayfly.errors import (
    CapacityError,
    DiskFullError,
    GuestError,
    MayflyError,
    SetupError,
    VmmApiError,
    VmmError,
    VmmExitedError,
    VmmTimeoutError,
)
from mayfly.pool.budget import Budget
from mayfly.pool.clone import Clone, CloneState
from mayfly.pool.pace import Pace
from mayfly.pool.shelf import PoolTargets, Shelf, clamp_targets
from mayfly.pool.size import Size
from mayfly.vmm.launcher import MachineSpec

if TYPE_CHECKING:
    from mayfly.model import HostInfo, HostKind
    from mayfly.pool.templates import Templates
    from mayfly.vmm.firecracker import FirecrackerLauncher
    from mayfly.vmm.launcher import Machine
    from mayfly.vmm.machine import SnapshotFiles

__all__ = ["Pool"]

_log = structlog.get_logger("mayfly.pool")

_REFILL_PAUSE_S = 0.01
"""Between two clones that are made ahead."""
_LOOK_AGAIN_S = 30.0
_LOOK_SOON_S = 0.25
_ROOM_S = 60.0
"""So long the making of a template that is overdue waits for room."""
_RETRY_S = 1.0
_FAILURES_MAX = 3
_SIZES_MAX = 8
_UNLIMITED_MIB = 1 << 30
_DRAINERS = 8
_USUAL = MachineSpec(id="", mem_mib=0)


class Pool:
    """A `Launcher` that gives clones. Run `fill` in a task group, and `drain` at the end."""

    def __init__(
        self, launcher: FirecrackerLauncher, templates: Templates, targets: PoolTargets, budget: Budget | None = None
    ) -> None:
        self.kind: HostKind = launcher.kind
        self._launcher = launcher
        self._templates = templates
        self._budget = budget or Budget(mem_mib=_UNLIMITED_MIB, machines=_UNLIMITED_MIB)
        self._targets, warning = clamp_targets(targets, self._budget)
        self.warnings = () if warning is None else (warning,)
        self._shelves: dict[Size, Shelf] = {}
        self._clones: dict[str, Clone] = {}
        self._held: set[str] = set()
        self._pace = Pace()
        self._wake = anyio.Event()
        self._pressure = anyio.Event()
        self._draining = False
        self._filling: anyio.CancelScope | None = None
        self._filled = anyio.Event()
        self._warming = anyio.CancelScope()
        self._budget.on_pressure = self._feel_pressure

    def held(self) -> frozenset[str]:
        """Ids of the machines that wait here or are being made ahead, a template's own machine included."""
        return frozenset(self._held | self._templates.making)

    def describe(self, image: str = "python") -> HostInfo:
        """See `Launcher.describe`."""
        return self._launcher.describe(image)

    def want(self, size: Size) -> None:
        """Keep clones of this size; when more than 8 sizes are wanted, the one used longest ago is given up."""
        shelf = self._shelves.get(size)
        if shelf is None and self._templates.worthwhile(size):
            self._shelves[size] = Shelf()
            self._wake.set()
        elif shelf is not None:
            shelf.dropped = False

    def state(self) -> dict[str, Any]:
        """What waits and runs, by size, and what it takes: for `GET /v1/pool`."""
        now = time.monotonic()
        return {
            "sizes": [self._row(size, shelf, now) for size, shelf in self._shelves.items()],
            "budget": self._budget.state(),
            "warnings": list(self.warnings),
        }

    async def launch(self, spec: MachineSpec) -> Machine:
        """A clone that waits, else one restored now, else a machine booted now. See `Launcher.launch`.

        A machine that is lost before it is ready is replaced once.
        """
        if self._draining:
            raise CapacityError("the node is shutting down", retry_after_s=5.0)
        size = Size.of(spec)
        self.want(size)
        self._warming.cancel()
        try:
            with self._pace.launch():
                return await self._launch_or_replace(spec, size)
        finally:
            self._wake.set()

    async def fill(self) -> None:
        """Keep the shelves at their targets until `drain`."""
        try:
            with anyio.CancelScope() as self._filling:
                async with anyio.create_task_group() as group:
                    group.start_soon(self._yield_to_executions)
                    while not self._draining:
                        if (wait_s := self._pace.wait_s()) > 0:
                            await anyio.sleep(wait_s)
                            continue
                        self._wake = anyio.Event()
                        with anyio.move_on_after(await self._fill_once()):
                            await self._wake.wait()
                    group.cancel_scope.cancel()
        finally:
            self._filled.set()

    async def drain(self) -> None:
        """Destroy everything that waits, also what is being made. Nothing is made ahead from now on."""
        self._draining = True
        if self._filling is not None:
            self._filling.cancel()
            await self._filled.wait()
        await self._discard_all([clone for shelf in self._shelves.values() for clone in shelf.waiting()])

    def waiting(self, key: str) -> int:
        """How many clones of the template with this key wait."""
        shelves = [shelf for size, shelf in self._shelves.items() if self._templates.key(size) == key]
        return sum(len(list(shelf.waiting())) for shelf in shelves)

    async def give_up(self, key: str) -> int:
        """Destroy the waiting clones of one template, by its key, and forget its size until the next claim."""
        for size, shelf in list(self._shelves.items()):
            if self._templates.key(size) == key:
                shelf.dropped = True
                clones = list(shelf.waiting())
                await self._discard_all(clones)
                self._shelves.pop(size, None)
                return len(clones)
        return 0

    def _row(self, size: Size, shelf: Shelf, now: float) -> dict[str, Any]:
        target = shelf.target(self._targets, now)
        states = Counter(clone.state for clone in self._clones.values() if clone.size == size)
        counts = {state.value: states[state] for state in CloneState if state is not CloneState.GONE}
        return {
            **size._asdict(),
            "template": self._templates.find(size) is not None,
            **counts,
            "warm": sum(clone.warm for clone in shelf.primed),
            "target_loaded": target.loaded,
            "target_primed": target.primed,
            "failures": shelf.failures,
            "waiting_mib": round(shelf.mib(), 1),
        }

    def _feel_pressure(self) -> None:
        self._pressure.set()

    def _clone(self, spec: MachineSpec, size: Size) -> Clone:
        clone = Clone(spec, size, self._changed)
        self._clones[clone.id] = clone
        return clone

    def _changed(self, clone: Clone) -> None:
        if clone.state is CloneState.GONE:
            self._clones.pop(clone.id, None)

    def _recount(self) -> None:
        self._budget.waiting_mib = sum(shelf.mib() for shelf in self._shelves.values())

    async def _take(self, size: Size) -> Clone | None:
        """The readiest clone whose VMM lives."""
        shelf = self._shelves.get(size)
        if shelf is None:
            return None
        shelf.last_claim = time.monotonic()
        for waiting in (shelf.primed, shelf.loaded):
            while waiting:
                clone = waiting.popleft()
                self._recount()
                if clone.alive:
                    return clone
                _log.warning("a waiting clone had died", id=clone.id, words=clone.last_words())
                shelf.failures += 1
                await self._discard(clone)
        return None

    async def _restore(self, spec: MachineSpec, size: Size, snapshot: SnapshotFiles) -> Clone | None:
        """A clone made for this claim; None, so that a machine is booted, when the template does not work."""
        clone = self._clone(spec, size)
        try:
            await clone.spawn(self._launcher, snapshot)
        except (MayflyError, OSError) as error:  # a full disk comes as either
            self._failed(size, error)
            return None
        return clone

    async def _launch_or_replace(self, spec: MachineSpec, size: Size) -> Machine:
        try:
            return await self._launch(spec, size)
        except (VmmExitedError, VmmTimeoutError, GuestError) as error:
            _log.warning("a machine was lost before it was ready; another is made", id=spec.id, error=str(error))
            again = msgspec.structs.replace(spec, id=_new_id())
            return await self._launch(again, size)

    async def _launch(self, spec: MachineSpec, size: Size) -> Machine:
        """One try at a machine; no user's code has run in it when it fails."""
        clone = await self._take(size)
        snapshot = await self._templates.at_hand(size) if clone is None and size in self._shelves else None
        if snapshot is not None:
            clone = await self._restore(spec, size, snapshot)
        return await self._launcher.launch(spec) if clone is None else await self._ready(clone, spec)

    async def _ready(self, clone: Clone, spec: MachineSpec) -> Clone:
        try:
            if (spec.io_mbps, spec.io_ops) != (_USUAL.io_mbps, _USUAL.io_ops):
                await clone.limit_io(mbps=spec.io_mbps, ops=spec.io_ops)
            if clone.state is CloneState.LOADED:
                await clone.prime()
            clone.hand_over()
            self._held.discard(clone.id)
        except BaseException:
            await self._discard(clone)
            raise
        return clone

    async def _fill_once(self) -> float:
        """One step towards the targets; returns how long to wait before the next. The sizes take turns."""
        self._drop_sizes()
        now = time.monotonic()
        for size, shelf in list(self._shelves.items()):
            if shelf.retry_at > now or self._shelves.get(size) is not shelf:
                continue
            try:
                if await self._step(size, shelf):
                    if self._shelves.get(size) is shelf:  # to the end: the others come first now
                        self._shelves[size] = self._shelves.pop(size)
                    return _REFILL_PAUSE_S
            except (MayflyError, OSError) as error:  # a full disk comes as either
                self._failed(size, error)
        if any(shelf.missing_since is not None or shelf.cold() for shelf in self._shelves.values()):  # both want quiet
            return _LOOK_SOON_S
        return _RETRY_S if any(shelf.retry_at > now for shelf in self._shelves.values()) else _LOOK_AGAIN_S

    async def _step(self, size: Size, shelf: Shelf) -> bool:
        target = shelf.target(self._targets, time.monotonic())
        if (surplus := shelf.surplus(target)) is not None:
            died = not surplus.alive
            shelf.remove(surplus)
            await self._discard(surplus)
            if died:
                raise VmmExitedError(f"a waiting clone had died: {surplus.last_words()}")
            return True
        if shelf.dropped:
            return False
        snapshot = self._templates.find(size)
        if snapshot is None:
            return await self._make_template(size, shelf)
        room = self._budget.room_to_wait
        if len(shelf.primed) < target.primed and shelf.loaded and room(shelf.primed_mib - shelf.loaded_mib):
            await self._prime_one(shelf)
        elif len(shelf.loaded) < target.loaded + target.primed - len(shelf.primed) and room(shelf.loaded_mib):
            await self._load_one(size, shelf, snapshot)
        elif self._pace.quiet and (cold := shelf.cold()) is not None:
            with anyio.CancelScope() as self._warming:  # until the next launch, which may take it
                await cold.warm_up()
            shelf.measure(cold)
            self._recount()
        else:
            return False
        return True

    async def _make_template(self, size: Size, shelf: Shelf) -> bool:
        if await self._templates.prepare(size) is not None:
            shelf.missing_since = None
            return True
        if shelf.missing_since is None:
            shelf.missing_since = time.monotonic()
        if not self._pace.template_due(shelf.missing_since, shelf.last_claim):
            return False
        patience_s = _ROOM_S if self._pace.starved(shelf.missing_since, shelf.last_claim) else 0.0
        async with self._budget.making(size.mem_mib, patience_s=patience_s) as found:
            if found:
                shelf.missing_since = None  # whatever comes of it
                await self._templates.build(size)
            return found

    async def _load_one(self, size: Size, shelf: Shelf, snapshot: SnapshotFiles) -> None:
        clone = self._clone(size.spec(_new_id()), size)
        self._held.add(clone.id)
        try:
            await clone.spawn(self._launcher, snapshot)
        except BaseException:
            self._held.discard(clone.id)
            raise
        shelf.loaded.append(clone)
        shelf.measure(clone)
        self._recount()
        if self._targets.primed == 0:
            shelf.failures = 0

    async def _prime_one(self, shelf: Shelf) -> None:
        clone = shelf.loaded.popleft()
        try:
            await clone.prime()
        except BaseException:
            await self._discard(clone)
            raise
        shelf.primed.append(clone)
        shelf.measure(clone)
        self._recount()
        shelf.failures = 0

    def _failed(self, size: Size, error: Exception) -> None:
        """Wait longer after each failure in a row; make the template again when it is refused, or after three."""
        _log.warning("cannot make clones", error=str(error), **size._asdict())
        shelf = self._shelves.get(size)
        if shelf is None:
            return
        failures = shelf.failed(time.monotonic())
        refused = isinstance(error, (VmmApiError, SetupError)) and not isinstance(error, DiskFullError)
        doubtful = failures >= _FAILURES_MAX and isinstance(error, (VmmError, GuestError))
        if (refused or doubtful) and self._templates.find(size) is not None:
            self._templates.forget(size)

    def _drop_sizes(self) -> None:
        live = [size for size, shelf in self._shelves.items() if not shelf.dropped]
        if len(live) > _SIZES_MAX:
            self._shelves[min(live, key=lambda size: self._shelves[size].last_claim)].dropped = True
        for size, shelf in list(self._shelves.items()):
            if shelf.dropped and not any(shelf.waiting()):
                del self._shelves[size]

    async def _yield_to_executions(self) -> None:
        """Destroy waiting clones while what runs needs their memory, of the size used longest ago first."""
        while True:
            await self._pressure.wait()
            self._pressure = anyio.Event()
            while self._budget.overdrawn_mib > 0:
                shelves = [shelf for shelf in self._shelves.values() if any(shelf.waiting())]
                if not shelves:
                    break
                shelf = min(shelves, key=lambda each: each.last_claim)
                clone = next(shelf.waiting())
                shelf.remove(clone)
                await self._discard(clone)

    async def _discard_all(self, clones: list[Clone]) -> None:
        limit = anyio.Semaphore(_DRAINERS)

        async def discard(clone: Clone) -> None:
            async with limit:
                holders = [shelf for shelf in self._shelves.values() if clone in shelf.waiting()]
                if holders:  # not taken in the meantime
                    holders[0].remove(clone)
                    await self._discard(clone)

        async with anyio.create_task_group() as group:
            for clone in clones:
                group.start_soon(discard, clone)

    async def _discard(self, clone: Clone) -> None:
        self._recount()
        with anyio.CancelScope(shield=True), contextlib.suppress(MayflyError):
            await clone.destroy()
        self._held.discard(clone.id)


def _new_id() -> str:
    return f"vm-{secrets.token_hex(10)}"
