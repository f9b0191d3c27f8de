"""One HTTP connection: uvicorn's protocol with a deadline for each request head, and answers that always arrive."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from mayfly.server.gathering import GatheringTransport

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

__all__ = ["Connection"]

_REQUEST_HEAD_S = 10.0
_LINGER_S = 10.0
"""So long, at most, is taken and thrown away what a client still sends after an answer that ends the connection."""
_UNREAD = (h11.SEND_BODY, h11.ERROR)


class Connection(H11Protocol):
    """uvicorn's protocol; a connection whose request head does not come in time is closed.

    An answer may be given before its request was read to the end, as for a body that is too large. Closing at once
    would make the client's system drop the answer for the reset that its next bytes meet, so such a connection is
    closed for writing first.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_timer: asyncio.TimerHandle | None = None
        self._lingering: _LingeringTransport | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The peer is there: its request head must come in time."""
        self._lingering = _LingeringTransport(transport, self.loop, self._has_unread)
        super().connection_made(self._lingering)
        self._watch_head()

    def data_received(self, data: bytes) -> None:
        """Taken, or thrown away once the connection is only kept until the peer has its answer."""
        if self._lingering is not None and self._lingering.is_closing():
            return
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self._watch_head()
        else:
            self._unwatch_head()

    def on_response_complete(self) -> None:
        """The client has its answer before the connection is got ready for another request."""
        if self._lingering is not None:
            self._lingering.flush()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """No timer outlives the connection."""
        self._unwatch_head()
        if self._lingering is not None:
            self._lingering.forget()
        super().connection_lost(exc)

    def _should_upgrade_to_ws(self) -> bool:
        """Yes; what speaks it is loaded when it is first asked for, since few nodes ever need it."""
        if self.ws_protocol_class is None:
            from uvicorn.protocols.websockets.wsproto_impl import WSProtocol

            self.ws_protocol_class = WSProtocol
        return True

    def _has_unread(self) -> bool:
        return self.conn.their_state in _UNREAD

    def _watch_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(_REQUEST_HEAD_S, self.transport.abort)

    def _unwatch_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


class _LingeringTransport(GatheringTransport):
    """A transport whose `close` waits for the peer's end, for `_LINGER_S` at most, while `has_unread` says so."""

    def __init__(
        self, inner: asyncio.Transport, loop: asyncio.AbstractEventLoop, has_unread: Callable[[], bool]
    ) -> None:
        super().__init__(inner, loop)
        self._loop = loop
        self._has_unread = has_unread
        self._timer: asyncio.TimerHandle | None = None

    def close(self) -> None:
        """Close for writing and take what comes, or altogether where nothing is unread and when called again."""
        if self.is_closing() or not self._has_unread():
            super().close()
            return
        self._timer = self._loop.call_later(_LINGER_S, self.abort)
        self.write_eof()
        self.resume_reading()

    def forget(self) -> None:
        """The connection is gone."""
        if self._timer is not None:
            self._timer.cancel()

    def is_closing(self) -> bool:
        """Whether nothing more is taken from the peer."""
        return self._timer is not None or super().is_closing()
