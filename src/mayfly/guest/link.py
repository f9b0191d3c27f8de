"""The host's end of a connection to the agent, through Firecracker's Unix socket for vsock.

Firecracker listens on one Unix socket per VM; whoever wants a guest port writes `CONNECT <port>` and reads
`OK <number>`. Everything that can be read here comes from the guest or the VMM and is bounded before it is kept.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio

from mayfly.errors import AgentLostError, ProtocolError, VmmTimeoutError
from mayfly.guest.frames import AGENT_PORT, FROM_GUEST, Frame, FrameDecoder, FrameError, encode
from mayfly.host.sockets import connect_unix

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from mayfly.host.unix_stream import UnixStream

__all__ = ["Link", "open_link"]

_CONNECT_TRY_S = 1.0
_PAUSE_FIRST_S = 0.002
_PAUSE_LONGEST_S = 0.05
_ANSWER_MAX_BYTES = 32  # "OK 4294967295\n" has 14
_RECEIVE_BYTES = 64 * 1024


class Link:
    """One connection to the agent: one operation. Made by `open_link`; close it with `aclose`."""

    def __init__(self, stream: UnixStream, rest: bytes = b"") -> None:
        self._stream = stream
        self._decoder = FrameDecoder(FROM_GUEST)
        self._frames: list[Frame] = []
        self._feed(rest)

    def _feed(self, data: bytes) -> None:
        try:
            self._frames += self._decoder.feed(data)
        except FrameError as error:
            raise ProtocolError(f"the guest sent no frame: {error}") from None

    async def send(self, frame_type: int, payload: bytes | Mapping[str, object]) -> None:
        """Sends one frame. Raises AgentLostError when the connection is gone."""
        await self.send_together((frame_type, payload))

    async def send_together(self, *frames: tuple[int, bytes | Mapping[str, object]]) -> None:
        """Sends frames at once, so that they wake the guest once. Raises AgentLostError when the connection is gone."""
        try:
            await self._stream.send(b"".join(encode(frame_type, payload) for frame_type, payload in frames))
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError) as error:
            raise AgentLostError("the agent closed the connection") from error

    async def receive(self) -> Frame:
        """The next frame. Raises AgentLostError at the end, ProtocolError for what is no frame."""
        while not self._frames:
            try:
                self._feed(await self._stream.receive(_RECEIVE_BYTES))
            except anyio.EndOfStream:
                cut = f", {self._decoder.buffered} bytes into a frame" if self._decoder.buffered else ""
                raise AgentLostError(f"the agent closed the connection{cut}") from None
            except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError) as error:
                raise AgentLostError("the connection to the agent broke") from error
        return self._frames.pop(0)

    async def aclose(self) -> None:
        """Closes the connection; the agent then kills what it still runs for it."""
        await self._stream.aclose()  # waits for nothing


@asynccontextmanager
async def open_link(
    vsock_path: Path, *, port: int = AGENT_PORT, deadline_s: float, try_s: float = _CONNECT_TRY_S
) -> AsyncIterator[Link]:
    """A link to the guest's `port`, closed on the way out.

    A guest that does not listen yet resets the connection, a VM just restored may do so too, and a connection
    that races the guest's `listen` can hang for good; so each try has `try_s`, and tries go on for `deadline_s`.
    Raises VmmTimeoutError when the VMM's socket never answered, AgentLostError when only the guest did not, and
    ProtocolError when the answer is not Firecracker's.
    """
    link = await _connect(vsock_path, port, deadline_s, try_s)
    try:
        yield link
    finally:
        await link.aclose()


async def _connect(vsock_path: Path, port: int, deadline_s: float, try_s: float) -> Link:
    until = anyio.current_time() + deadline_s
    pause_s = _PAUSE_FIRST_S
    reached = False
    why = "no try was made"
    while (left_s := until - anyio.current_time()) > 0:
        stream: UnixStream | None = None
        try:
            with anyio.fail_after(min(try_s, left_s)):
                stream = await connect_unix(vsock_path)
                reached = True
                rest = await _handshake(stream, port)
            return Link(stream, rest)
        except TimeoutError:
            why = "the answer took too long"
        except anyio.EndOfStream:
            why = "the guest does not listen"
        except (anyio.BrokenResourceError, OSError) as error:
            why = str(error) or type(error).__name__
        except BaseException:
            await _discard(stream)
            raise
        await _discard(stream)
        await anyio.sleep(max(0.0, min(pause_s, until - anyio.current_time())))
        pause_s = min(2 * pause_s, _PAUSE_LONGEST_S)
    message = f"no connection to port {port} of the guest within {deadline_s:g} s: {why}"
    raise AgentLostError(message) if reached else VmmTimeoutError(message)


async def _handshake(stream: UnixStream, port: int) -> bytes:
    """Asks for the port; returns what came after the answer's line. Raises ProtocolError for another answer."""
    await stream.send(b"CONNECT %d\n" % port)
    answer = b""
    while b"\n" not in answer:
        if len(answer) >= _ANSWER_MAX_BYTES:
            raise ProtocolError("the VMM answered CONNECT with a line that does not end")
        answer += await stream.receive(_ANSWER_MAX_BYTES - len(answer))
    line, _, rest = answer.partition(b"\n")
    if not (line.startswith(b"OK ") and line[3:].isdigit()):
        raise ProtocolError(f"the VMM answered CONNECT with {line!r}")
    return rest


async def _discard(stream: UnixStream | None) -> None:
    if stream is not None:
        await stream.aclose()
