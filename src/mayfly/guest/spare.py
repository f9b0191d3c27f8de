"""A link opened ahead of need, so that the next operation does not wait for a connection to be made."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import anyio

from mayfly.errors import AgentLostError, VmmTimeoutError
from mayfly.guest.link import open_link

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from mayfly.guest.link import Link

__all__ = ["SpareLink"]

_FRESH_S = 30.0
"""Half of what the agent gives a connection to say what it is for."""


class SpareLink:
    """At most one open link to the agent behind `vsock_path`, which nothing was said on yet."""

    def __init__(self, vsock_path: Path, *, deadline_s: float) -> None:
        self._vsock_path = vsock_path
        self._deadline_s = deadline_s
        self._kept: tuple[contextlib.AsyncExitStack, Link, float] | None = None
        self._opening: anyio.Event | None = None
        """Set when the one that is being opened is there, or cannot be had."""

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Link]:
        """The spare link where there is a fresh one, else a new one; as `open_link`."""
        if self._opening is not None:  # begun earlier than what could be begun now
            await self._opening.wait()
        kept, self._kept = self._kept, None
        if kept is not None and anyio.current_time() - kept[2] > _FRESH_S:
            await kept[0].aclose()
            kept = None
        if kept is None:
            async with open_link(self._vsock_path, deadline_s=self._deadline_s) as link:
                yield link
        else:
            async with kept[0]:
                yield kept[1]

    async def prepare(self) -> None:
        """Open a spare link. An agent that does not answer now is the next operation's affair."""
        if self._opening is not None or self._kept is not None:
            return
        self._opening = opening = anyio.Event()
        stack = contextlib.AsyncExitStack()
        try:
            link = await stack.enter_async_context(open_link(self._vsock_path, deadline_s=1.0))
            self._kept = (stack, link, anyio.current_time())
        except (AgentLostError, VmmTimeoutError):
            return
        finally:
            self._opening = None
            opening.set()

    async def aclose(self) -> None:
        """Close it."""
        kept, self._kept = self._kept, None
        if kept is not None:
            await kept[0].aclose()
