"""Requests about one sandbox, and streams that a dropped connection does not end."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlencode

import anyio
import msgspec

from mayfly.client.core import NodeClient
from mayfly.client.kept import Kept
from mayfly.client.websocket import open_websocket
from mayfly.errors import InvalidRequestError, MayflyError, NodeError, NodeLostError, NodeUnavailableError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Mapping

    from mayfly.client.http import Answer
    from mayfly.client.websocket import WebSocket
    from mayfly.sandbox_model import SandboxId

__all__ = ["LISTING_MAX_BYTES", "SandboxCalls", "Stream", "about"]

LISTING_MAX_BYTES = 64 * 1024 * 1024
"""The longest list that is read."""

_SILENCE_S = 60.0
"""A node says at least an empty line every 15 s."""
_SHORT_S = 30.0
_PAUSES_S = (0.05, 0.2, 0.5, 1.0, 2.0)
"""A node that went away is asked again after each of these."""

T = TypeVar("T")
Query = dict[str, "str | int | bool | None"]


class Stream(msgspec.Struct, frozen=True, kw_only=True):
    """How a stream of events begins, and how it goes on after an interruption."""

    method: str
    path: str
    body: msgspec.Struct | None = None
    decoder: Any
    """`msgspec.json.Decoder` of the events."""
    resume: Any
    """The last event → the path that continues after it; None where that is not possible."""
    line_bytes: int = LISTING_MAX_BYTES
    is_last: Any
    """Whether an event is the last one."""


class SandboxCalls:
    """Requests below `/v1/sandboxes/{id}`. Errors carry the sandbox's id."""

    def __init__(self, client: NodeClient, sandbox_id: SandboxId, *, output_bytes: int = 1024 * 1024) -> None:
        self._kept = Kept()
        self.client = NodeClient(client.address, kept=self._kept)
        self.id = sandbox_id
        self.output_bytes = output_bytes
        """Kept of each stream of a run or command."""

    def let_go(self) -> None:
        """Close the connection that is kept for the next request."""
        self._kept.close()

    async def ask(
        self,
        method: str,
        path: str,
        body: msgspec.Struct | None = None,
        *,
        into: type[T],
        query: Query | None = None,
        deadline_s: float = _SHORT_S,
    ) -> T:
        """One request and its whole answer; `into` is `None` where there is none."""
        with about(self.id):
            target = self.target(path, query)
            return await self.client.ask(
                method, target, body, into=into, limit_bytes=LISTING_MAX_BYTES, deadline_s=deadline_s
            )

    @contextlib.asynccontextmanager
    async def open(
        self,
        method: str,
        path: str,
        body: AsyncIterable[bytes] | None = None,
        *,
        query: Query | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Answer]:
        """One request whose body, answer or both are streams of bytes."""
        with about(self.id):
            target = self.target(path, query)
            async with self.client.open(method, target, body, headers=headers, deadline_s=_SILENCE_S) as answer:
                yield answer

    @contextlib.asynccontextmanager
    async def socket(self, path: str, *, query: Query | None = None) -> AsyncIterator[WebSocket]:
        """A WebSocket below the sandbox; a refusal is raised as the error that it is."""
        with about(self.id):
            async with open_websocket(self.client.address, self.target(path, query)) as (socket, status, body):
                if status != 101:
                    raise self.client.refusal(status, body)
                yield socket

    def target(self, path: str, query: Query | None = None) -> str:
        """The request's target for `path` below the sandbox."""
        given = {name: _plain(value) for name, value in (query or {}).items() if value is not None}
        try:
            tail = f"?{urlencode(given, quote_via=quote)}" if given else ""
            return f"/v1/sandboxes/{quote(self.id, safe='')}{path}{tail}"
        except UnicodeEncodeError:
            raise InvalidRequestError("path must be text without halves of surrogate pairs", field="path") from None

    async def events(self, stream: Stream) -> AsyncGenerator[Any]:
        """The events of a stream to its last one; picked up where it broke off, for as long as the node can be found.

        NodeLostError when it cannot, or when nothing is heard for a minute again and again.
        """
        method, path, body = stream.method, stream.path, stream.body
        attempt, last = 0, None
        while True:
            try:
                async with contextlib.aclosing(self._once(method, path, body, stream)) as events:
                    async for event in events:
                        attempt, last = 0, event
                        yield event
                        if stream.is_last(event):
                            return
                failure: MayflyError = NodeLostError("the node ended the stream before its last event")
            except (NodeLostError, NodeUnavailableError) as error:
                failure = error
            onward = None if last is None else stream.resume(last)
            if onward is None or attempt == len(_PAUSES_S):
                failure.sandbox_id = self.id
                raise failure
            await anyio.sleep(_PAUSES_S[attempt])
            attempt += 1
            method, path, body = "GET", onward, None

    async def _once(self, method: str, path: str, body: msgspec.Struct | None, stream: Stream) -> AsyncGenerator[Any]:
        with about(self.id):
            async with (
                self.client.open(method, self.target(path), body, deadline_s=_SILENCE_S) as answer,
                contextlib.aclosing(answer.lines(limit_bytes=stream.line_bytes, deadline_s=_SILENCE_S)) as lines,
            ):
                async for line in lines:
                    if line:
                        yield self._decoded(line, stream.decoder)

    def _decoded(self, line: bytes, decoder: Any) -> Any:
        try:
            return decoder.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise NodeError(
                f"the node sent what this client does not understand: {error}", retryable=False, sandbox_id=self.id
            ) from None


@contextlib.contextmanager
def about(sandbox_id: SandboxId) -> Any:
    """Errors that are raised inside say which sandbox they are about."""
    try:
        yield
    except MayflyError as error:
        error.sandbox_id = error.sandbox_id or sandbox_id
        raise


def _plain(value: str | int | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
