"""The clones of one size that wait, and how many there ought to be."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mayfly.pool.budget import Budget
    from mayfly.pool.clone import Clone

__all__ = ["LOADED_MIB", "PRIMED_MIB", "PoolTargets", "Shelf", "clamp_targets"]

LOADED_MIB = 8.0
PRIMED_MIB = 40.0
"""What a waiting clone is reckoned with until one has been measured."""
IDLE_SHRINK_S = 300.0
IDLE_EMPTY_S = 1800.0
_BACKOFF_FIRST_S = 1.0
_BACKOFF_LONGEST_S = 60.0


@dataclass(frozen=True, slots=True)
class PoolTargets:
    """How many clones of each wanted size wait, restored (`loaded`) and running and greeted (`primed`)."""

    loaded: int = 2
    primed: int = 1


_NONE = PoolTargets(0, 0)


@dataclass(slots=True)
class Shelf:
    """What waits of one size. `dropped`: it is to be emptied and then forgotten.

    `missing_since`: when its template was looked for and not there, and has not been tried to make since.
    """

    loaded: deque[Clone] = field(default_factory=deque)
    primed: deque[Clone] = field(default_factory=deque)
    last_claim: float = field(default_factory=time.monotonic)
    failures: int = 0
    retry_at: float = 0.0
    dropped: bool = False
    missing_since: float | None = None
    loaded_mib: float = LOADED_MIB
    primed_mib: float = PRIMED_MIB

    def waiting(self) -> Iterator[Clone]:
        """All of them, the readiest first."""
        yield from self.primed
        yield from self.loaded

    def cold(self) -> Clone | None:
        """A primed clone that has not been warmed up."""
        return next((clone for clone in self.primed if not clone.warm), None)

    def measure(self, clone: Clone) -> None:
        """Reckon with what this one takes, if it still waits, for all of its kind."""
        mib = clone.memory_mib()
        if mib and clone in self.primed:
            self.primed_mib = max(1.0, mib)
        elif mib and clone in self.loaded:
            self.loaded_mib = max(1.0, mib)

    def mib(self) -> float:
        """Memory that they are reckoned to take."""
        return len(self.loaded) * self.loaded_mib + len(self.primed) * self.primed_mib

    def target(self, usual: PoolTargets, now: float) -> PoolTargets:
        """How many there ought to be: less after five minutes without a claim, none after half an hour."""
        idle_s = now - self.last_claim
        if self.dropped or idle_s > IDLE_EMPTY_S:
            return _NONE
        if idle_s > IDLE_SHRINK_S:
            return PoolTargets(loaded=min(1, usual.loaded), primed=0)
        return usual

    def surplus(self, target: PoolTargets) -> Clone | None:
        """A clone that is dead, or more than there ought to be."""
        for clone in self.waiting():
            if not clone.alive:
                return clone
        if len(self.loaded) > target.loaded + max(0, target.primed - len(self.primed)):
            return self.loaded[-1]
        return self.primed[-1] if len(self.primed) > target.primed else None

    def remove(self, clone: Clone) -> None:
        """Take one off, wherever it stands."""
        (self.primed if clone in self.primed else self.loaded).remove(clone)

    def failed(self, now: float) -> int:
        """Wait longer after each failure in a row; returns how many there were."""
        self.failures += 1
        self.retry_at = now + min(_BACKOFF_LONGEST_S, _BACKOFF_FIRST_S * 2 ** min(self.failures, 16))
        return self.failures


def clamp_targets(targets: PoolTargets, budget: Budget) -> tuple[PoolTargets, str | None]:
    """Targets that one size can have within the memory for waiting clones, and a sentence when that is less."""
    primed = min(targets.primed, int(budget.most_waiting_mib / PRIMED_MIB))
    loaded = min(targets.loaded, int((budget.most_waiting_mib - primed * PRIMED_MIB) / LOADED_MIB))
    fitting = PoolTargets(loaded=max(0, loaded), primed=max(0, primed))
    if fitting == targets:
        return targets, None
    return fitting, (
        f"{targets.loaded} loaded and {targets.primed} primed clones do not fit {budget.most_waiting_mib:.0f} MiB, "
        f"half of this node's memory: {fitting.loaded} and {fitting.primed} are kept"
    )
