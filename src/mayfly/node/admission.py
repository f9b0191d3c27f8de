"""Who may start now: a budget of memory and machines, a bounded queue, and a clear answer when there is no room."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from typing import TYPE_CHECKING

import anyio

from mayfly.errors import CapacityError, InvalidRequestError
from mayfly.pool.budget import OVERHEAD_MIB, Budget

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mayfly.model import Limits

__all__ = ["STOPPED_RETRY_S", "Admission"]

STOPPED_RETRY_S = 5.0
"""When to come again to a node that is being stopped: it may be started anew."""
_RETRY_LEAST_S = 1.0
_RETRY_MOST_S = 60.0
_FIRST_GUESS_S = 5.0
_WEIGHT = 0.1

_HINT = "open sandboxes hold room too: mayfly ps lists them, mayfly kill ends one"

_Kind = tuple[str, int, int, int]


class _Ticket:
    """A place in the queue. `decided` is set when the room is its own, or will never be: `refused`."""

    def __init__(self, mem_mib: int) -> None:
        self.mem_mib = mem_mib
        self.refused = False
        self.decided = anyio.Event()


class Admission:
    """Room for machines of `mem_mib` in all and `machines` at once; at most `queue` wait for it, in all.

    Machines of one kind (image and size) come in the order in which they were asked for, and the kinds take turns, so
    that a burst of one does not hold up the others. Whose turn it is waits until it fits: a large machine is not
    overtaken for ever by small ones.
    """

    def __init__(self, *, mem_mib: int, vcpus: int, machines: int, queue: int = 256, wait_s: float = 60.0) -> None:
        self.mem_mib = mem_mib
        self.vcpus = vcpus
        self.budget = Budget(mem_mib=mem_mib, machines=machines)
        self.budget.on_room = self._wake
        self._queue_max = queue
        self._wait_s = wait_s
        self._turns: dict[_Kind, deque[_Ticket]] = {}
        self._usual_hold_s = _FIRST_GUESS_S

    @property
    def running(self) -> int:
        """Machines that have room now."""
        return self.budget.running

    def check(self, limits: Limits) -> None:
        """InvalidRequestError when such a machine never fits here."""
        if limits.mem_mib + OVERHEAD_MIB > self.mem_mib:
            most = self.mem_mib - OVERHEAD_MIB
            raise InvalidRequestError(
                f"limits.mem_mib is {limits.mem_mib}, but machines here have at most {most} MiB", field="limits.mem_mib"
            )
        if limits.vcpus > self.vcpus:
            raise InvalidRequestError(
                f"limits.vcpus is {limits.vcpus}, but machines here have at most {self.vcpus}", field="limits.vcpus"
            )

    @contextlib.asynccontextmanager
    async def slot(self, limits: Limits, *, image: str = "python") -> AsyncIterator[None]:
        """Room for one machine while the block runs. CapacityError when the queue is full or the wait too long."""
        if self._turns or not self.budget.fits(limits.mem_mib):
            await self._wait((image, limits.mem_mib, limits.vcpus, limits.scratch_mib))
        else:
            self.budget.take(limits.mem_mib)
        started = time.monotonic()
        try:
            yield
        finally:
            self._usual_hold_s += _WEIGHT * (time.monotonic() - started - self._usual_hold_s)
            self._give_back(limits.mem_mib)

    def retry_after_s(self) -> float:
        """A guess of when somebody who is refused now may find room: how long those before it take."""
        rounds = (self.budget.queued + 1) / max(1, self.budget.machines)
        return round(min(_RETRY_MOST_S, max(_RETRY_LEAST_S, rounds * self._usual_hold_s)), 1)

    def refuse_waiting(self) -> None:
        """CapacityError for everybody who waits: the node stops."""
        tickets = [ticket for turn in self._turns.values() for ticket in turn]
        self._turns.clear()
        self.budget.queued = 0
        for ticket in tickets:
            ticket.refused = True
            ticket.decided.set()

    async def _wait(self, kind: _Kind) -> None:
        if self.budget.queued >= self._queue_max:
            raise CapacityError(
                f"the node is full and {self._queue_max} executions wait already", retry_after_s=self.retry_after_s()
            )
        ticket = _Ticket(kind[1])
        self._turns.setdefault(kind, deque()).append(ticket)
        self.budget.queued += 1
        try:
            with anyio.fail_after(self._wait_s):
                await ticket.decided.wait()
        except BaseException as error:
            if not ticket.decided.is_set():
                self._leave(kind, ticket)
            elif not ticket.refused:  # given and cancelled at once: the room goes to the next
                self._give_back(ticket.mem_mib)
            if isinstance(error, TimeoutError):
                raise CapacityError(
                    f"no room came free within {self._wait_s:g} s", retry_after_s=self.retry_after_s(), hint=_HINT
                ) from error
            raise
        if ticket.refused:
            raise CapacityError("the node is shutting down", retry_after_s=STOPPED_RETRY_S)

    def _leave(self, kind: _Kind, ticket: _Ticket) -> None:
        self._turns[kind].remove(ticket)
        if not self._turns[kind]:
            del self._turns[kind]
        self.budget.queued -= 1
        self._wake()

    def _give_back(self, mem_mib: int) -> None:
        self.budget.give_back(mem_mib)
        self._wake()

    def _wake(self) -> None:
        while self._turns:
            kind = next(iter(self._turns))
            tickets = self._turns[kind]
            if not self.budget.fits(tickets[0].mem_mib):
                return
            ticket = tickets.popleft()
            del self._turns[kind]
            if tickets:  # behind the other kinds
                self._turns[kind] = tickets
            self.budget.queued -= 1
            self.budget.take(ticket.mem_mib)
            ticket.decided.set()
