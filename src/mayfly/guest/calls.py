"""What the host asks of an agent: one function an operation, each over a link of its own.

Whatever the agent answers is checked for shape and range, and every limit that the agent enforces is enforced
here again, by the host's clock and count.
"""

from __future__ import annotations

import base64
import contextlib
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import anyio
import msgspec

from mayfly.errors import AgentLostError, GuestError, ProtocolError
from mayfly.guest.frames import PAYLOAD_MAX_BYTES, PROTOCOL_VERSION, FrameError, FrameType
from mayfly.model import Usage

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable

    from mayfly.guest.frames import Frame
    from mayfly.guest.link import Link
    from mayfly.model import ExecutionRequest

__all__ = ["ExitReport", "Pong", "execute", "greet", "ping"]

_Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
_Milliseconds = Annotated[float, msgspec.Meta(ge=0, le=1e10)]
_Reason = Literal["exit", "signal", "timeout", "cpu", "oom"]
_Stream = Literal["stdout", "stderr"]
_STREAMS: dict[int, _Stream] = {FrameType.STDOUT: "stdout", FrameType.STDERR: "stderr"}
_Shape = TypeVar("_Shape")


class Pong(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent says of itself. `uptime_ms` counts from the guest's boot."""

    protocol: Annotated[int, msgspec.Meta(ge=PROTOCOL_VERSION, le=PROTOCOL_VERSION)]
    agent: Annotated[str, msgspec.Meta(max_length=64)]
    python: Annotated[str, msgspec.Meta(max_length=64)]
    uptime_ms: _Milliseconds
    kernel: Annotated[str, msgspec.Meta(max_length=128)]


class ExitReport(msgspec.Struct, frozen=True, kw_only=True):
    """How a program ended, as its agent says.

    `exit_code` is set when `reason` is `exit`, `signal` (such as `SIGSEGV`) when it is `signal`.
    """

    reason: _Reason
    exit_code: int | None
    signal: str | None
    usage: Usage
    truncated: bool


class _UsageShape(msgspec.Struct, frozen=True, kw_only=True):
    wall_ms: _Milliseconds
    cpu_ms: _Milliseconds
    mem_peak_bytes: _Count
    stdout_bytes: _Count
    stderr_bytes: _Count


class _ExitShape(msgspec.Struct, frozen=True, kw_only=True):
    nonce: str
    reason: _Reason
    exit_code: Annotated[int, msgspec.Meta(ge=0, le=255)] | None
    signal: Annotated[str, msgspec.Meta(pattern=r"^SIG[A-Z0-9+]{1,16}$")] | None
    usage: _UsageShape
    truncated: bool


class _StartedShape(msgspec.Struct, frozen=True, kw_only=True):
    nonce: str
    pid: _Count


class _ErrorShape(msgspec.Struct, frozen=True, kw_only=True):
    code: Annotated[str, msgspec.Meta(pattern=r"^[a-z_]{1,64}$")]
    message: Annotated[str, msgspec.Meta(max_length=4096)]


async def ping(link: Link, *, deadline_s: float = 10.0) -> Pong:
    """Asks who is there. Raises AgentLostError after `deadline_s`, ProtocolError for another protocol."""
    return _decode(await _ask(link, FrameType.PING, {}, FrameType.PONG, deadline_s), Pong)


async def greet(
    link: Link,
    *,
    entropy: bytes,
    unix_ns: int,
    hostname: str,
    machine_id: str,
    deadline_s: float = 10.0,
) -> None:
    """Makes a clone differ from its twins: at least 32 bytes of entropy, the time, its names.

    Raises GuestError when the agent could not do all of it; the clone must not be used then.
    """
    request = {
        "entropy": base64.b64encode(entropy).decode(),
        "unix_ns": unix_ns,
        "hostname": hostname,
        "machine_id": machine_id,
    }
    await _ask(link, FrameType.GREET, request, FrameType.GREETED, deadline_s)


async def execute(
    link: Link,
    request: ExecutionRequest,
    *,
    nonce: str,
    mem_bytes: int | None,
    stdin: AsyncIterable[bytes] | None,
    on_output: Callable[[_Stream, bytes], Awaitable[None]],
    grace_s: float = 2.0,
) -> ExitReport:
    """Runs a program and reports how it ended. `on_output` gets the pieces as they come, and slows the program.

    `mem_bytes` None leaves the program all of the guest's memory but the agent's reserve. `stdin` None is an
    empty input. Raises AgentLostError when no end is reported `grace_s` after the program's time is up,
    ProtocolError when the agent breaks the protocol or sends more than was allowed, GuestError when it could not
    start the program. After any of these the VM is to be destroyed.
    """
    run = _Run(link, request, nonce, on_output)
    limit_s = request.limits.timeout_s + grace_s
    with anyio.move_on_after(limit_s):
        return await run.to_end(_exec_frame(request, nonce, mem_bytes, stdin is not None), stdin)
    raise AgentLostError(f"the agent did not report the program's end within {limit_s:g} s")


def _exec_frame(request: ExecutionRequest, nonce: str, mem_bytes: int | None, has_stdin: bool) -> dict[str, object]:
    limits = request.limits
    return {
        "nonce": nonce,
        "lang": request.lang,
        "filename": request.filename or {"python": "main.py", "bash": "main.sh"}[request.lang],
        "program_bytes": len(request.code.encode()),
        "args": request.args,
        "env": request.env,
        "stdin": has_stdin,
        "limits": {
            "timeout_s": limits.timeout_s,
            "cpu_s": limits.cpu_s,
            "pids": limits.pids,
            "mem_bytes": mem_bytes,
            "output_bytes": limits.output_bytes,
        },
    }


class _Run:
    """One execution as the host sees it: its counts and how far it has come."""

    def __init__(
        self,
        link: Link,
        request: ExecutionRequest,
        nonce: str,
        on_output: Callable[[_Stream, bytes], Awaitable[None]],
    ) -> None:
        self._link = link
        self._request = request
        self._nonce = nonce
        self._on_output = on_output
        self._started = False
        self._counts: dict[_Stream, int] = {"stdout": 0, "stderr": 0}
        self._report: ExitReport | None = None
        self._error: Exception | None = None

    async def to_end(self, exec_frame: dict[str, object], stdin: AsyncIterable[bytes] | None) -> ExitReport:
        """Sends and receives at the same time, until the end is reported."""
        if stdin is None and self._fits_a_frame():
            await self._send(exec_frame, None)  # what fits the socket's buffer is sent without waiting for a reader
            await self._receive_all()
        else:
            await self._both_ways(exec_frame, stdin)
        if self._report is None:
            raise AgentLostError("the agent did not report the program's end")
        return self._report

    def _fits_a_frame(self) -> bool:
        return len(self._request.code) <= PAYLOAD_MAX_BYTES // 4  # characters, of at most four bytes

    async def _both_ways(self, exec_frame: dict[str, object], stdin: AsyncIterable[bytes] | None) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._guard, tasks.cancel_scope, self._send, exec_frame, stdin)
            await self._guard(tasks.cancel_scope, self._receive_all)
            tasks.cancel_scope.cancel()  # the program has ended; nobody reads its input any more
        if self._error is not None:
            raise self._error

    async def _guard(self, scope: anyio.CancelScope, part: Callable[..., Awaitable[None]], *args: object) -> None:
        """Runs one side; its error ends both, and comes out alone instead of in a group."""
        try:
            await part(*args)
        except Exception as error:  # noqa: BLE001  raised again by `to_end`
            self._error = self._error or error
            scope.cancel()

    async def _send(self, exec_frame: dict[str, object], stdin: AsyncIterable[bytes] | None) -> None:
        program = self._request.code.encode()
        try:
            first = program[:PAYLOAD_MAX_BYTES]
            await self._link.send_together(
                (FrameType.EXEC, exec_frame), *([(FrameType.PROGRAM, first)] if first else [])
            )
            for start in range(PAYLOAD_MAX_BYTES, len(program), PAYLOAD_MAX_BYTES):
                await self._link.send(FrameType.PROGRAM, program[start : start + PAYLOAD_MAX_BYTES])
            if stdin is None:
                return
            async for piece in stdin:
                for start in range(0, len(piece), PAYLOAD_MAX_BYTES):
                    await self._link.send(FrameType.STDIN, bytes(piece[start : start + PAYLOAD_MAX_BYTES]))
            await self._link.send(FrameType.STDIN, b"")
        except AgentLostError:
            return  # the receiving side learns why, or reads the last words of an agent that has closed

    async def _receive_all(self) -> None:
        while self._report is None:
            frame = await self._link.receive()
            stream = _STREAMS.get(frame.type)
            if frame.type == FrameType.ERROR:
                raise _refusal(frame)
            if frame.type == FrameType.STARTED and not self._started:
                self._check_nonce(_decode(frame, _StartedShape).nonce)
                self._started = True
            elif self._started and stream is not None:
                await self._take_output(stream, frame.payload)
            elif self._started and frame.type == FrameType.EXIT:
                self._report = self._exit_report(_decode(frame, _ExitShape))
            else:
                raise ProtocolError(f"the agent sent a frame that does not fit here: {frame!r}")

    async def _take_output(self, stream: _Stream, data: bytes) -> None:
        self._counts[stream] += len(data)
        if self._counts[stream] > self._request.limits.output_bytes:
            raise ProtocolError(f"the agent sent more {stream} than output_bytes allows")
        await self._on_output(stream, data)

    def _check_nonce(self, nonce: str) -> None:
        if nonce != self._nonce:
            raise ProtocolError("the agent answered with another execution's nonce")

    def _exit_report(self, shape: _ExitShape) -> ExitReport:
        self._check_nonce(shape.nonce)
        if (shape.exit_code is not None) != (shape.reason == "exit"):
            raise ProtocolError("EXIT: exit_code must be set for the reason exit, and only then")
        if (shape.signal is not None) != (shape.reason == "signal"):
            raise ProtocolError("EXIT: signal must be set for the reason signal, and only then")
        return ExitReport(
            reason=shape.reason,
            exit_code=shape.exit_code,
            signal=shape.signal,
            usage=msgspec.convert(msgspec.to_builtins(shape.usage), Usage),
            truncated=shape.truncated,
        )


async def _ask(link: Link, asked: int, payload: dict[str, object], answered: int, deadline_s: float) -> Frame:
    with anyio.move_on_after(deadline_s):
        with contextlib.suppress(AgentLostError):  # an agent that has closed may have said why
            await link.send(asked, payload)
        frame = await link.receive()
        if frame.type == FrameType.ERROR:
            raise _refusal(frame)
        if frame.type != answered:
            raise ProtocolError(f"the agent sent a frame that does not fit here: {frame!r}")
        return frame
    raise AgentLostError(f"the agent did not answer within {deadline_s:g} s")


def _refusal(frame: Frame) -> GuestError:
    shape = _decode(frame, _ErrorShape)
    message = "".join(char if char.isprintable() else "?" for char in shape.message[:500])
    return GuestError(f"the agent refused: {shape.code}: {message}")


def _decode(frame: Frame, shape: type[_Shape]) -> _Shape:
    """The payload as that shape. Raises ProtocolError naming the field."""
    try:
        return msgspec.convert(frame.json(), shape)
    except (FrameError, msgspec.ValidationError) as error:
        raise ProtocolError(f"the agent sent {frame!r}: {error}") from None
