"""One connection of the host: its frames in and out, and the operation that it carries."""

from __future__ import annotations

import os
import select
import sys
import time

from mayfly.agent import process
from mayfly.agent.bare import socket
from mayfly.agent.execution import Execution, rlimits_for
from mayfly.agent.loop import READ, WRITE
from mayfly.agent.requests import CallRequest, ExecRequest, GreetRequest, RequestError
from mayfly.guest.frames import (
    FROM_HOST,
    PAYLOAD_MAX_BYTES,
    PROTOCOL_VERSION,
    Frame,
    FrameDecoder,
    FrameError,
    FrameType,
    encode,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    from mayfly.agent.server import Server

    class Operation(Protocol):
        """What a connection carries once its request is complete."""

        @property
        def full(self) -> bool:
            """Whether the host should not be read from for now."""

        def frame(self, frame: Frame) -> None:
            """A frame that came after the request. Raises RequestError for one that does not fit."""

        def resume_output(self) -> None:
            """The connection is not congested any more."""

        def abort(self) -> None:
            """The host has gone, or must not hear more. Safe to call at any time."""

    Begin = Callable[[Server, "Connection", dict[str, Any]], Operation | None]


__all__ = ["AGENT_VERSION", "Connection"]

AGENT_VERSION = "2"
_IDLE_DEADLINE_S = 60.0
_REQUEST_DEADLINE_S = 10.0
_LINGER_S = 5.0
_BACKLOG_HIGH_BYTES = 4 * PAYLOAD_MAX_BYTES
_RECEIVE_BYTES = 4 * PAYLOAD_MAX_BYTES


class Connection:
    """One connection, which carries one operation."""

    def __init__(self, server: Server, sock: socket.socket) -> None:
        self._server = server
        self._loop = server.loop
        self._sock = sock
        self._decoder = FrameDecoder(FROM_HOST)
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._finishing = False
        self._closed = False
        self._reading = True
        self._request: ExecRequest | CallRequest | None = None
        self._program = bytearray()
        self._operation: Operation | None = None
        sock.setblocking(False)
        self._silent = True  # so far: the host keeps connections open ahead of need
        self._deadline = self._loop.call_in(_IDLE_DEADLINE_S, self.close)
        self._watch()

    @property
    def congested(self) -> bool:
        """Whether output should wait until the host has read some."""
        return self._out_bytes >= _BACKLOG_HIGH_BYTES

    # -- bytes ---------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        events = select.EPOLLRDHUP | (select.EPOLLIN if self._reading else 0)
        self._loop.watch(self._sock.fileno(), events | (WRITE if self._out else 0), self._ready)

    def _ready(self, events: int) -> None:
        if events & WRITE:
            self._flush()
        if self._closed:
            return
        if events & select.EPOLLIN and self._reading:
            self._receive()
        elif events & (select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR):
            self.close()

    def _receive(self) -> None:
        try:
            data = self._sock.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        if self._silent:
            self._silent = False
            self._deadline.cancel()
            self._deadline = self._loop.call_in(_REQUEST_DEADLINE_S, self.close)
        if self._finishing:
            return  # too late to matter; read so that closing does not cut off what was sent
        try:
            for frame in self._decoder.feed(data):
                self._take(frame)
        except FrameError as error:
            self.fail("bad_frame", str(error))
        except RequestError as error:
            self.fail(error.code, error.message)
        except Exception as error:
            self.fail("internal", f"{type(error).__name__}: {error}")
            raise

    def send(self, frame_type: int, payload: bytes | dict[str, object]) -> None:
        """Queues one frame and sends what the socket takes."""
        self.send_together((frame_type, payload))

    def send_together(self, *frames: tuple[int, bytes | dict[str, object]]) -> None:
        """Queues frames in one piece, which wakes the host once, and sends what the socket takes."""
        if self._closed or self._finishing:
            return
        data = b"".join([encode(frame_type, payload) for frame_type, payload in frames])
        self._out.append(data)
        self._out_bytes += len(data)
        self._flush()

    def _flush(self) -> None:
        was_congested = self.congested
        try:
            while self._out:
                sent = self._sock.send(self._out[0])
                self._out_bytes -= sent
                self._out[0] = self._out[0][sent:]
                if not self._out[0]:
                    del self._out[0]
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        if not self._out and self._finishing:
            self._half_close()
            return
        self._watch()
        if was_congested and not self.congested and self._operation is not None:
            self._operation.resume_output()

    def resume_reading(self) -> None:
        """Reads from the host again, if there is room for what it sends."""
        reading = self._operation is None or not self._operation.full
        if reading != self._reading and not self._closed:
            self._reading = reading
            self._watch()

    def fail(self, code: str, message: str) -> None:
        """Sends ERROR, kills what runs, and closes after it."""
        self.send(FrameType.ERROR, {"code": code, "message": message[:2000]})
        if self._operation is not None:
            self._operation.abort()
        self.finish()

    def finish(self) -> None:
        """Closes once the host has read everything queued, and has closed or lingered too long."""
        if self._finishing or self._closed:
            return
        self._finishing = True
        self._reading = True
        self._deadline.cancel()
        self._flush()

    def _half_close(self) -> None:
        self._deadline = self._loop.call_in(_LINGER_S, self.close)
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.close()
            return
        self._loop.watch(self._sock.fileno(), READ, self._ready)

    def close(self) -> None:
        """Ends the connection now, and its program with it."""
        if self._closed:
            return
        self._closed = True
        self._deadline.cancel()
        self._loop.forget(self._sock.fileno())
        self._sock.close()
        self._out.clear()
        self._server.closed(self)
        if self._operation is not None:
            self._operation.abort()

    # -- operations ----------------------------------------------------------------------------------------

    def _take(self, frame: Frame) -> None:
        if self._finishing or self._closed:
            return
        if self._operation is not None:
            self._operation.frame(frame)
            self.resume_reading()
        elif self._request is not None:
            self._take_program(self._request, frame)
        elif frame.type == FrameType.PING:
            frame.json()
            self.send(FrameType.PONG, _pong())
            self.finish()
        elif frame.type == FrameType.GREET:
            self._greet(GreetRequest(frame.json()))
        elif frame.type in (FrameType.EXEC, FrameType.CALL):
            self._request = (ExecRequest if frame.type == FrameType.EXEC else CallRequest)(frame.json())
            if self._request.program_bytes == 0:
                self._begin(self._request)
        else:
            raise RequestError("bad_request", "the first frame must be PING, GREET, EXEC or CALL")

    def _take_program(self, request: ExecRequest | CallRequest, frame: Frame) -> None:
        if frame.type != FrameType.PROGRAM:
            raise RequestError("bad_request", "expected PROGRAM until the whole program has come")
        if len(self._program) + len(frame.payload) > request.program_bytes:
            raise RequestError("bad_request", "PROGRAM: more than program_bytes")
        self._program += frame.payload
        if len(self._program) == request.program_bytes:
            self._begin(request)

    def _begin(self, request: ExecRequest | CallRequest) -> None:
        self._deadline.cancel()
        if isinstance(request, ExecRequest):
            self._execute(request)
            return
        from mayfly.agent.operations import begin  # what one-shot programs do without is not loaded for them

        args = request.args
        if self._program:
            args = Frame(FrameType.CALL, bytes(self._program)).json()
            self._program.clear()
        operation = begin(self._server, self, request.op, args)
        if operation is not None and not self._closed:
            self._operation = operation

    def _greet(self, request: GreetRequest) -> None:
        self._server.greeted = True
        if self._server.settings.in_guest:
            from mayfly.agent import greet

            greet.greet(request)
        self.send(FrameType.GREETED, {})
        self.finish()

    def _execute(self, request: ExecRequest) -> None:
        server = self._server
        mem_bytes = request.mem_bytes or server.memory_bytes
        program = process.Program(
            request.filename,
            bytes(self._program),
            args=request.args,
            env=process.base_environment(server.settings) | request.env,
            rlimits=rlimits_for(request, server.settings, mem_bytes),
        )
        self._program.clear()
        child = server.child_for(request, program)
        execution = self._operation = Execution(self._loop, self, request, child)
        execution.start(program, mem_bytes)


def _pong() -> dict[str, object]:
    version = sys.version_info
    return {
        "protocol": PROTOCOL_VERSION,
        "agent": AGENT_VERSION,
        "python": f"{version.major}.{version.minor}.{version.micro}",
        "uptime_ms": round(time.clock_gettime(time.CLOCK_BOOTTIME) * 1000),
        "kernel": os.uname().release,
    }
