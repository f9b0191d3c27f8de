"""What a node's machines may take together.

Those that run count by what they were promised, those that wait by what they have touched. Who runs comes first:
waiting clones are made only from what is left, and given up when it is needed.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

__all__ = ["OVERHEAD_MIB", "Budget"]

OVERHEAD_MIB = 16
"""Host memory that a machine takes beside its guest's."""
_WAITING_SHARE = 0.5
"""The part of all memory that waiting clones may have at most."""


class Budget:
    """Memory in MiB and machines at once. One owner each: admission for what runs, the pool for what waits."""

    def __init__(self, *, mem_mib: int, machines: int) -> None:
        self.mem_mib = mem_mib
        self.machines = machines
        self.running = 0
        self.running_mib = 0
        self.waiting_mib = 0.0
        self.making_mib = 0
        """Memory of the machine that a template is being made from."""
        self._kept_mib = 0
        """The part of all memory that executions do not get meanwhile."""
        self._asked_mib = 0
        self._granted = anyio.Event()
        self.queued = 0
        """Executions that wait for room; while there are any, nothing is made ahead."""
        self.on_pressure: Callable[[], None] = lambda: None
        """Called when what runs has taken memory that waiting clones still have."""
        self.on_room: Callable[[], None] = lambda: None
        """Called when room that was kept from executions is theirs again."""

    def state(self) -> dict[str, float]:
        """The numbers, for `GET /v1/pool`."""
        return {
            "mem_mib": self.mem_mib,
            "machines": self.machines,
            "running": self.running,
            "running_mib": self.running_mib,
            "waiting_mib": round(self.waiting_mib, 1),
            "queued": self.queued,
        }

    def fits(self, mem_mib: int) -> bool:
        """Whether one more machine of this memory may run now; clones that wait are no obstacle, they are given up."""
        free = self.mem_mib - self.running_mib - self._kept_mib
        return mem_mib + OVERHEAD_MIB <= free and self.running + (self._kept_mib > 0) < self.machines

    def take(self, mem_mib: int) -> None:
        """Count one more running machine."""
        self.running += 1
        self.running_mib += mem_mib + OVERHEAD_MIB
        self._tell_if_overdrawn()

    def give_back(self, mem_mib: int) -> None:
        """One that ran has ended."""
        self.running -= 1
        self.running_mib -= mem_mib + OVERHEAD_MIB
        if self._asked_mib and self.fits(self._asked_mib):
            self._keep(self._asked_mib)

    @contextlib.asynccontextmanager
    async def making(self, mem_mib: int, *, patience_s: float = 0.0) -> AsyncIterator[bool]:
        """Room for a template's machine while the block runs; whether there is any.

        Without patience it is room that nobody waits for, and executions that come later may have it too. With
        patience it is also the next that comes free, before the executions that wait, and kept from them; only where
        it is not all that they have.
        """
        patient = patience_s > 0 and self._is_not_all(mem_mib)
        found = self.fits(mem_mib) and (patient or not self.queued)
        if found and self.queued:
            self._keep(mem_mib)
        try:
            if patient and not found:
                found = await self._next_room(mem_mib, patience_s)
            self.making_mib = mem_mib if found else 0
            self._tell_if_overdrawn()
            yield found
        finally:
            kept, self._kept_mib, self.making_mib = self._kept_mib, 0, 0
            if kept:
                self.on_room()

    def _tell_if_overdrawn(self) -> None:
        if self.overdrawn_mib > 0:
            self.on_pressure()

    def _is_not_all(self, mem_mib: int) -> bool:
        return self.machines > 1 and 2 * (mem_mib + OVERHEAD_MIB) <= self.mem_mib

    async def _next_room(self, mem_mib: int, patience_s: float) -> bool:
        self._asked_mib, self._granted = mem_mib, anyio.Event()
        try:
            with anyio.move_on_after(patience_s):
                await self._granted.wait()
        finally:
            self._asked_mib = 0
        return self._granted.is_set()

    def _keep(self, mem_mib: int) -> None:
        self._asked_mib = 0
        self._kept_mib = mem_mib + OVERHEAD_MIB
        self._granted.set()

    def room_to_wait(self, mib: float) -> bool:
        """Whether a clone that takes so much may be made ahead."""
        free = self.mem_mib - self.running_mib - self.making_mib - self.waiting_mib
        return self.queued == 0 and mib <= free and self.waiting_mib + mib <= self.most_waiting_mib

    @property
    def most_waiting_mib(self) -> float:
        """What waiting clones may have together at most."""
        return self.mem_mib * _WAITING_SHARE

    @property
    def overdrawn_mib(self) -> float:
        """How much of the memory of waiting clones must be given up; 0 or less when nothing must."""
        return self.running_mib + self.making_mib + self.waiting_mib - self.mem_mib
