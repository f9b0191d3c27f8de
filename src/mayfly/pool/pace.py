"""When something may be made ahead: in the pauses between launches, and at a bounded rate where there are none.

What is made ahead takes the processors that launches want, so it waits for quiet. A node that is never quiet would boot
a kernel for each execution for ever; so patience ends, and one step is taken all the same.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Pace"]

_QUIET_S = 0.25
"""So long no launch must have been under way before a clone is made ahead."""
_QUIET_FOR_TEMPLATE_S = 2.0
"""The same for a template, whose boot takes longer than a caller wants to share the processors with."""
_PATIENCE_S = 1.5
"""After so long without quiet one step is taken; so it is also the time between two of them."""
_PATIENCE_FOR_TEMPLATE_S = 20.0
"""So long a size is without its template before that is made without quiet, if it has been claimed within as long."""
_LOOK_S = 0.05


class Pace:
    """Counts launches, and says how long what is made ahead has to wait for them."""

    def __init__(self) -> None:
        self._launching = 0
        self._quiet_since = time.monotonic()
        self._held_up_since: float | None = None

    @contextlib.contextmanager
    def launch(self) -> Iterator[None]:
        """A launch is under way while the block runs."""
        self._launching += 1
        try:
            yield
        finally:
            self._launching -= 1
            self._quiet_since = time.monotonic()

    def wait_s(self) -> float:
        """How long until it is worth asking again; 0 when the next step may be taken, which the caller then does."""
        now = time.monotonic()
        if self._quiet_s(now) >= _QUIET_S:
            self._held_up_since = None
            return 0.0
        if self._held_up_since is None:
            self._held_up_since = now
        left = self._held_up_since + _PATIENCE_S - now
        if left > 0:
            return min(left, _LOOK_S)
        self._held_up_since = None
        return 0.0

    @property
    def quiet(self) -> bool:
        """Whether no launch is under way or was a moment ago."""
        return self._quiet_s(time.monotonic()) >= _QUIET_S

    def template_due(self, missing_since: float, last_claim: float) -> bool:
        """Whether a template that has been missing since then may be made now."""
        quiet_s = self._quiet_s(time.monotonic())
        return quiet_s >= _QUIET_FOR_TEMPLATE_S or self.starved(missing_since, last_claim)

    def starved(self, missing_since: float, last_claim: float) -> bool:
        """Whether a template has been missing for so long, and is still asked for, that it is made without quiet."""
        now = time.monotonic()
        return now - missing_since >= _PATIENCE_FOR_TEMPLATE_S > now - last_claim

    def _quiet_s(self, now: float) -> float:
        return -1.0 if self._launching else now - self._quiet_since
