"""One HTTP request over one connection, with a deadline on every wait and a bound on everything read.

Small on purpose: importing a general HTTP library takes longer than everything else that `mayfly run` does before
its first request.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import anyio
import h11

from mayfly.errors import NodeError, NodeLostError, NodeUnavailableError
from mayfly.host.sockets import connect_unix
from mayfly.host.tasks import single_error
from mayfly.host.unix_stream import UnixStream

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Mapping

    from anyio.abc import ByteStream

    from mayfly.client.address import NodeAddress
    from mayfly.client.kept import Kept

__all__ = ["Answer", "connect", "open_exchange"]

_CONNECT_S = 5.0
_SEND_S = 60.0
_HEAD_MAX_BYTES = 64 * 1024
_READ_BYTES = 64 * 1024


class Answer:
    """The answer to one request: `status`, `headers` (lower-case names); its body by `read`, `chunks` or `lines`."""

    def __init__(self, exchange: _Exchange, status: int, headers: Mapping[str, str]) -> None:
        self._exchange = exchange
        self.status = status
        self.headers = headers

    async def read(self, *, limit_bytes: int, deadline_s: float) -> bytes:
        """The whole body; NodeError when it is larger than `limit_bytes`."""
        body = bytearray()
        while (data := await self._exchange.body_part(deadline_s)) is not None:
            body += data
            if len(body) > limit_bytes:
                raise NodeError(f"the node's answer is larger than {limit_bytes:,} bytes", retryable=False)
        return bytes(body)

    async def chunks(self, *, deadline_s: float, limit_bytes: int | None = None) -> AsyncGenerator[bytes]:
        """The body in pieces as they come, at most `limit_bytes`; NodeLostError as for `lines`."""
        left = limit_bytes
        while (left is None or left > 0) and (data := await self._exchange.body_part(deadline_s)) is not None:
            if left is not None:
                data = data[:left]
                left -= len(data)
            yield data

    async def lines(self, *, limit_bytes: int, deadline_s: float) -> AsyncGenerator[bytes]:
        """The body's lines as they come, each at most `limit_bytes` (else NodeError).

        NodeLostError when nothing comes for `deadline_s`, or when the body is cut off.
        """
        pending: list[bytes] = []
        size = 0
        while (data := await self._exchange.body_part(deadline_s)) is not None:
            *complete, rest = data.split(b"\n")
            for line in complete:
                yield b"".join([*pending, line])
                pending, size = [], 0
            pending.append(rest)
            size += len(rest)
            if size > limit_bytes:
                raise NodeError(f"the node sent a line larger than {limit_bytes:,} bytes", retryable=False)


@contextlib.asynccontextmanager
async def open_exchange(
    address: NodeAddress,
    method: str,
    target: str,
    *,
    headers: Mapping[str, str] | None = None,
    content: bytes | AsyncIterable[bytes] = b"",
    deadline_s: float,
    kept: Kept | None = None,
) -> AsyncIterator[Answer]:
    """Send a request and give its answer once the head is there, at most `deadline_s` after the request was sent.

    A stream as `content` is sent in chunks while the answer is awaited; an answer ends the sending. The connection is
    taken from `kept` where there is one, and kept there when the answer was read to its end. Raises
    NodeUnavailableError when the node cannot be reached, NodeLostError when it goes away or misses a deadline.
    """
    fields = [("Host", address.authority)]
    if kept is None:
        fields.append(("Connection", "close"))
    fields += (headers or {}).items()
    if address.token is not None:
        fields.append(("Authorization", f"Bearer {address.token}"))
    if not isinstance(content, bytes):
        fields.append(("Transfer-Encoding", "chunked"))
    elif content or method == "POST":
        fields.append(("Content-Length", str(len(content))))
    request = h11.Request(method=method, target=target, headers=fields)
    exchange, answer = await _answered(address, request, content, deadline_s, kept)
    try:
        yield answer
    finally:
        if kept is None or not (exchange.is_over() and kept.give(exchange.stream, exchange.http)):
            await exchange.aclose()


async def _answered(
    address: NodeAddress,
    request: h11.Request,
    content: bytes | AsyncIterable[bytes],
    deadline_s: float,
    kept: Kept | None,
) -> tuple[_Exchange, Answer]:
    """Ask over the connection that was kept; over a new one without, or where that was closed before it took this.

    A body that is a stream can be sent once only, so it gets a new one.
    """
    if kept is not None and isinstance(content, bytes) and (found := kept.take()) is not None:
        exchange = _Exchange(*found, str(address))
        try:
            return exchange, await exchange.ask(request, content, deadline_s)
        except NodeLostError:
            if exchange.heard or not found[0].refused:  # what was answered to was taken
                raise
    exchange = _Exchange(await connect(address), _client(), str(address))
    return exchange, await exchange.ask(request, content, deadline_s)


def _client() -> h11.Connection:
    return h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD_MAX_BYTES)


async def connect(address: NodeAddress) -> ByteStream:
    """A connection to the node; NodeUnavailableError."""
    try:
        with anyio.fail_after(_CONNECT_S):
            if address.unix_socket is not None:
                return await connect_unix(address.unix_socket)
            if address.tls:
                return await anyio.connect_tcp(address.host, address.port, tls=True, tls_standard_compatible=False)
            return await anyio.connect_tcp(address.host, address.port)
    except TimeoutError:
        raise NodeUnavailableError(f"no node answers at {address} within {_CONNECT_S:g} s") from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise NodeUnavailableError(f"no node answers at {address}: {reason[:1].lower()}{reason[1:]}") from error


class _Exchange:
    def __init__(self, stream: ByteStream, http: h11.Connection, name: str) -> None:
        self.stream = stream
        self.http = http
        self.heard = False
        """Whether anything of an answer came."""
        self._name = name

    async def ask(self, request: h11.Request, content: bytes | AsyncIterable[bytes], deadline_s: float) -> Answer:
        """Send it, with the body if it is at hand in one write: the node is woken once. Closed when that fails."""
        try:
            if not isinstance(content, bytes):
                await self._send(request, deadline_s=_SEND_S)
                return await self._head_while_sending(content)
            body = [h11.Data(data=content)] if content else []
            await self._send(request, *body, h11.EndOfMessage(), deadline_s=_SEND_S)
            return await self._head(deadline_s)
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """Close the connection."""
        with anyio.CancelScope(shield=True):
            await anyio.aclose_forcefully(self.stream)

    def is_over(self) -> bool:
        """Whether request and answer are at their ends, so that the connection can take another request.

        What has come of the answer already, and nobody asked for, may be its end.
        """
        if self.http.their_state is h11.SEND_BODY:
            try:
                self.http.next_event()
            except h11.RemoteProtocolError:
                return False
        done = self.http.our_state is h11.DONE and self.http.their_state is h11.DONE
        return done and not self.http.trailing_data[0]

    async def _send(self, *events: h11.Event, deadline_s: float | None) -> None:
        data = b"".join(self.http.send(event) or b"" for event in events)
        if not data:
            return
        try:
            await _sent(self.stream, data, deadline_s)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            # The node may have answered before it stopped reading (413): the answer tells more than the break.
            return
        except TimeoutError:
            raise self._lost(f"took nothing for {deadline_s:g} s") from None

    async def _head(self, deadline_s: float | None) -> Answer:
        while True:
            event = await self._next(deadline_s)
            if isinstance(event, h11.Response):
                named = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in event.headers}
                return Answer(self, event.status_code, named)
            if not isinstance(event, h11.InformationalResponse):
                raise self._lost("closed the connection without an answer")

    async def _head_while_sending(self, content: AsyncIterable[bytes]) -> Answer:
        answer: Answer | None = None
        with single_error():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._send_all, content)
                answer = await self._head(None)
                tasks.cancel_scope.cancel()
        if answer is None:
            raise self._lost("gave no answer")
        return answer

    async def _send_all(self, content: AsyncIterable[bytes]) -> None:
        async for chunk in content:
            # No deadline: how long the program leaves its input unread is the program's affair.
            await self._send(h11.Data(data=chunk), deadline_s=None)
        await self._send(h11.EndOfMessage(), deadline_s=None)

    async def body_part(self, deadline_s: float) -> bytes | None:
        """The next bytes of the body, None at its end."""
        event = await self._next(deadline_s)
        if isinstance(event, h11.Data):
            return bytes(event.data)
        if isinstance(event, h11.EndOfMessage):
            return None
        raise self._lost("cut off its answer")

    async def _next(self, deadline_s: float | None) -> object:
        while True:
            try:
                event = self.http.next_event()
            except h11.RemoteProtocolError as error:
                raise self._lost(f"broke off or sent what is not HTTP ({error})") from None
            if event is not h11.NEED_DATA:
                return event
            self.http.receive_data(await self._receive(deadline_s))

    async def _receive(self, deadline_s: float | None) -> bytes:
        try:
            data = await _received(self.stream, deadline_s)
        except anyio.EndOfStream:
            return b""
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            raise self._lost("went away") from None
        except TimeoutError:
            raise self._lost(f"said nothing for {deadline_s:g} s") from None
        self.heard = True
        return data

    def _lost(self, what: str) -> NodeLostError:
        return NodeLostError(f"the node at {self._name} {what}")


async def _sent(stream: ByteStream, data: bytes, within_s: float | None) -> None:
    """TimeoutError when it takes longer. A scope costs more than all else of sending, so a Unix socket goes without."""
    if isinstance(stream, UnixStream):
        await stream.send(data, within_s=within_s)
    else:
        with anyio.fail_after(within_s):
            await stream.send(data)


async def _received(stream: ByteStream, within_s: float | None) -> bytes:
    """As `_sent`, for what comes."""
    if isinstance(stream, UnixStream):
        return await stream.receive(_READ_BYTES, within_s=within_s)
    with anyio.fail_after(within_s):
        return await stream.receive(_READ_BYTES)
