"""Taking away what an ended process left running, without blocking the loop."""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from mayfly.agent.loop import Loop
    from mayfly.agent.process import Enclosure

__all__ = ["sweep_away"]

_AGAIN_S = 0.01
_PATIENCE_S = 2.0


def sweep_away(loop: Loop, enclosure: Enclosure, then: Callable[[], None] | None = None) -> None:
    """Kills everything in the enclosure, removes it, and calls `then`; at the latest after two seconds."""
    until = time.monotonic() + _PATIENCE_S

    def step() -> None:
        enclosure.kill()
        if not enclosure.empty() and time.monotonic() < until:
            loop.call_in(_AGAIN_S, step)
            return
        enclosure.remove()
        if then is not None:
            then()

    step()
