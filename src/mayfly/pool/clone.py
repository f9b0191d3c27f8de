"""One clone and its states; every transition is made here and nowhere else.

`spawning` (jail, VMM and restore under way) → `loaded` (restored, not running) → `primed` (running and greeted) →
`running` (given to its one caller) → `dying` → `gone`. Any state may go to `dying`.
"""

from __future__ import annotations

import contextlib
from enum import Enum
from typing import TYPE_CHECKING

import anyio
import structlog

from mayfly.errors import MayflyError, VmmError
from mayfly.pool.greeting import greet_machine, warm_machine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mayfly.pool.size import Size
    from mayfly.vmm.firecracker import FirecrackerLauncher
    from mayfly.vmm.launcher import MachineSpec
    from mayfly.vmm.machine import FirecrackerMachine, SnapshotFiles

__all__ = ["Clone", "CloneState"]

_WEIGHT_OF_WARMING = 10
_WEIGHT_OF_RUNNING = 100
"""Shares of busy processors, in percent of a usual machine's."""

_log = structlog.get_logger("mayfly.pool")


class CloneState(Enum):
    """Where a clone is in its life."""

    SPAWNING = "spawning"
    LOADED = "loaded"
    PRIMED = "primed"
    RUNNING = "running"
    DYING = "dying"
    GONE = "gone"


_NEXT = {
    CloneState.SPAWNING: {CloneState.LOADED, CloneState.DYING},
    CloneState.LOADED: {CloneState.PRIMED, CloneState.DYING},
    CloneState.PRIMED: {CloneState.RUNNING, CloneState.DYING},
    CloneState.RUNNING: {CloneState.DYING},
    CloneState.DYING: {CloneState.GONE, CloneState.DYING},
    CloneState.GONE: {CloneState.GONE},
}


class Clone:
    """A machine restored from a template; given to one caller at most. A `mayfly.vmm.launcher.Machine`.

    `on_change` hears of every transition, after it.
    """

    def __init__(self, spec: MachineSpec, size: Size, on_change: Callable[[Clone], None] = lambda _: None) -> None:
        self.id = spec.id
        self.size = size
        self.state = CloneState.SPAWNING
        self.warm = False
        """Whether the memory that a program's start needs has been touched."""
        self._spec = spec
        self._machine: FirecrackerMachine | None = None
        self._never = anyio.Event()
        self._on_change = on_change

    async def spawn(self, launcher: FirecrackerLauncher, snapshot: SnapshotFiles) -> None:
        """Restore it, not yet running: `loaded`. On failure nothing of it remains, and it is `gone`."""
        try:
            self._machine = await launcher.load(self._spec, snapshot)
        except BaseException:
            self._become(CloneState.DYING)
            self._become(CloneState.GONE)
            raise
        self._become(CloneState.LOADED)

    @property
    def vsock_path(self) -> Path:
        """See `Machine.vsock_path`."""
        return self._made.vsock_path

    @property
    def exited(self) -> anyio.Event:
        """See `Machine.exited`."""
        return self._never if self._machine is None else self._machine.exited

    @property
    def greeted(self) -> bool:
        """See `Machine.greeted`: a clone is greeted when it is primed."""
        return self.state in (CloneState.PRIMED, CloneState.RUNNING)

    @property
    def alive(self) -> bool:
        """Whether its VMM still runs."""
        return self._machine is not None and not self._machine.exited.is_set()

    def cpu_s(self) -> float:
        """See `Machine.cpu_s`."""
        return self._made.cpu_s()

    def memory_mib(self) -> float:
        """What it has of the host's memory that it shares with no other clone; 0 when unknown."""
        return 0.0 if self._machine is None else self._machine.memory_mib()

    def last_words(self) -> str:
        """See `Machine.last_words`."""
        return self._made.last_words()

    async def limit_io(self, *, mbps: int, ops: int) -> None:
        """Give it other rates than its template had."""
        await self._made.limit_io(mbps=mbps, ops=ops)

    async def prime(self) -> None:
        """Let it run and greet it: `primed`. On failure the caller destroys it."""
        await self._made.resume()
        await greet_machine(self)
        self._become(CloneState.PRIMED)

    async def warm_up(self) -> None:
        """Let a primed one touch its memory: `warm`. May be cancelled at any time; what goes wrong is only slower.

        Meanwhile it gives way to the machines that run somebody's program.
        """
        try:
            with self._giving_way():
                await warm_machine(self)
        except MayflyError as error:
            _log.warning("a clone could not be warmed up", id=self.id, error=str(error))
        self.warm = True

    @contextlib.contextmanager
    def _giving_way(self) -> Iterator[None]:
        self._made.weigh(_WEIGHT_OF_WARMING)
        try:
            yield
        finally:
            if self.state in (CloneState.PRIMED, CloneState.RUNNING):  # a claim may have come first
                self._made.weigh(_WEIGHT_OF_RUNNING)

    def hand_over(self) -> None:
        """It belongs to a caller now: `running`."""
        self._become(CloneState.RUNNING)

    async def destroy(self) -> None:
        """See `Machine.destroy`."""
        if self.state is CloneState.GONE:
            return
        self._become(CloneState.DYING)
        if self._machine is not None:
            await self._machine.destroy()
        self._become(CloneState.GONE)

    @property
    def _made(self) -> FirecrackerMachine:
        if self._machine is None:
            raise VmmError(f"clone {self.id} is {self.state.value} and has no machine")
        return self._machine

    def _become(self, state: CloneState) -> None:
        if state not in _NEXT[self.state]:
            raise RuntimeError(f"clone {self.id} cannot go from {self.state.value} to {state.value}")
        _log.debug("clone", id=self.id, was=self.state.value, now=state.value)
        self.state = state
        self._on_change(self)
