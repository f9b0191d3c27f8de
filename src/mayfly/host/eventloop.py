"""The event loop of Mayfly's own processes and threads."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from contextlib import AbstractContextManager

    from anyio.from_thread import BlockingPortal

__all__ = ["BACKEND_OPTIONS", "EventLoop", "open_portal", "run"]

T = TypeVar("T")


class EventLoop(asyncio.SelectorEventLoop):
    """asyncio's, which says nothing of a wait that was cancelled in the moment in which its socket became ready.

    anyio's streams over Unix sockets then set the result of a future that is done: harmless, but asyncio would report
    it on standard error.
    """

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Report `context` as asyncio does, unless it is such a late wake-up."""
        if not ("handle" in context and isinstance(context.get("exception"), asyncio.InvalidStateError)):
            super().call_exception_handler(context)


BACKEND_OPTIONS = {"loop_factory": EventLoop}
"""For anyio's `backend_options`."""


def run(work: Coroutine[Any, Any, T]) -> T:
    """`work` to its end in a loop of its own; Ctrl-C cancels it and is raised as KeyboardInterrupt."""
    with asyncio.Runner(loop_factory=EventLoop) as runner:
        return runner.run(work)


def open_portal(name: str | None = None) -> AbstractContextManager[BlockingPortal]:
    """A loop in a thread of its own, called `name`, ended with the context."""
    from anyio.from_thread import start_blocking_portal

    return start_blocking_portal(backend_options=BACKEND_OPTIONS, name=name)
