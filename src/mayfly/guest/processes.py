"""A process in the guest, as the host follows it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal

import anyio
import msgspec

from mayfly.errors import AgentLostError, ProtocolError
from mayfly.guest.asking import ask_frames, convert, printable, refusal
from mayfly.guest.frames import PAYLOAD_MAX_BYTES, FrameType
from mayfly.guest.shapes import ProcessEnd, ProcessGap, ProcessInfo, ProcessOutput
from mayfly.model import Usage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from mayfly.guest.frames import Frame
    from mayfly.guest.link import Link
    from mayfly.guest.shapes import ProcessEvent, ProcessSpec, Stream

__all__ = ["ProcessLink", "follow", "process_info", "send_input", "spec_args"]

_Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
_Milliseconds = Annotated[float, msgspec.Meta(ge=0, le=1e10)]
_Text = Annotated[str, msgspec.Meta(max_length=8192)]
_STREAMS: dict[int, Stream] = {FrameType.STDOUT: "stdout", FrameType.STDERR: "stderr"}
_START_S = 30.0


class _UsageShape(msgspec.Struct, frozen=True, kw_only=True):
    wall_ms: _Milliseconds
    cpu_ms: _Milliseconds
    mem_peak_bytes: _Count


class _EndShape(msgspec.Struct, frozen=True, kw_only=True):
    reason: Literal["exit", "signal", "timeout", "oom"]
    exit_code: Annotated[int, msgspec.Meta(ge=0, le=255)] | None
    signal: Annotated[str, msgspec.Meta(pattern=r"^SIG[A-Z0-9+]{1,16}$")] | None
    usage: _UsageShape

    def end(self) -> ProcessEnd:
        if (self.exit_code is not None) != (self.reason == "exit"):
            raise ProtocolError("EXIT: exit_code must be set for the reason exit, and only then")
        if (self.signal is not None) != (self.reason == "signal"):
            raise ProtocolError("EXIT: signal must be set for the reason signal, and only then")
        usage = msgspec.convert(msgspec.to_builtins(self.usage), Usage)
        return ProcessEnd(reason=self.reason, exit_code=self.exit_code, signal=self.signal, usage=usage)


class _StartedShape(msgspec.Struct, frozen=True, kw_only=True):
    pid: _Count
    offset: _Count


class _GapShape(msgspec.Struct, frozen=True, kw_only=True):
    offset: _Count
    missing: _Count


class _InfoShape(msgspec.Struct, frozen=True, kw_only=True):
    pid: _Count
    command: _Text
    cwd: _Text
    running: bool
    pty: bool
    keep: bool
    started_at: Annotated[float, msgspec.Meta(ge=0, le=1e12)]
    output_bytes: _Count
    end: _EndShape | None


def process_info(item: dict[str, Any]) -> ProcessInfo:
    """The process that an item of a PART tells of. Raises ProtocolError."""
    try:
        shape = msgspec.convert(item, _InfoShape)
    except msgspec.ValidationError as error:
        raise ProtocolError(f"the agent sent a bad process: {error}") from None
    return ProcessInfo(
        pid=shape.pid,
        command=shape.command,
        cwd=printable(shape.cwd, 8192),
        running=shape.running,
        pty=shape.pty,
        keep=shape.keep,
        started_at=shape.started_at,
        output_bytes=shape.output_bytes,
        end=None if shape.end is None else shape.end.end(),
    )


def spec_args(spec: ProcessSpec) -> dict[str, object]:
    """The arguments of the operation that starts it."""
    return {
        "argv": spec.argv,
        "shell": spec.shell,
        "cwd": spec.cwd,
        "env": spec.env,
        "stdin": spec.stdin,
        "pty": None if spec.pty is None else {"cols": spec.pty[0], "rows": spec.pty[1]},
        "keep": spec.keep,
        "timeout_s": spec.timeout_s,
        "pids": spec.pids,
        "buffer_bytes": spec.buffer_bytes,
    }


class ProcessLink:
    """A followed process: `async for event in link` until its end. Made by `Guest.open_process`."""

    def __init__(self, link: Link, pid: int, offset: int) -> None:
        self._link = link
        self.pid = pid
        self.offset = offset
        """Where the output that follows begins."""

    async def __aiter__(self) -> AsyncIterator[ProcessEvent]:
        while True:
            frame = await self._link.receive()
            stream = _STREAMS.get(frame.type)
            if stream is not None:
                first, self.offset = self.offset, self.offset + len(frame.payload)
                yield ProcessOutput(stream=stream, data=frame.payload, offset=first)
            elif frame.type == FrameType.GAP:
                gap = convert(frame, _GapShape)
                if gap.offset != self.offset + gap.missing:
                    raise ProtocolError("GAP: offset and missing do not fit what was sent before")
                self.offset = gap.offset
                yield ProcessGap(offset=gap.offset, missing_bytes=gap.missing)
            elif frame.type == FrameType.EXIT:
                yield convert(frame, _EndShape).end()
                return
            else:
                raise refusal(frame)

    async def send_stdin(self, data: bytes) -> None:
        """Input, of any size; waits where the process does not take it. What a process closed is dropped."""
        view = memoryview(data)
        for start in range(0, len(view), PAYLOAD_MAX_BYTES):
            await self._link.send(FrameType.STDIN, bytes(view[start : start + PAYLOAD_MAX_BYTES]))

    async def close_stdin(self) -> None:
        """Ends the input; for a terminal it is end-of-file as typed."""
        await self._link.send(FrameType.STDIN, b"")

    async def resize(self, cols: int, rows: int) -> None:
        """The new size of its terminal."""
        await self._link.send(FrameType.RESIZE, {"cols": cols, "rows": rows})

    async def signal(self, signal: str) -> None:
        """As `Guest.signal_process`."""
        await self._link.send(FrameType.SIGNAL, {"signal": signal})


@asynccontextmanager
async def follow(link: Link, op: str, args: Mapping[str, object]) -> AsyncIterator[ProcessLink]:
    """Starts or attaches, and yields once the process runs. Raises what the agent refuses."""
    yield await _started(link, op, args)


async def _started(link: Link, op: str, args: Mapping[str, object]) -> ProcessLink:
    with anyio.move_on_after(_START_S):
        for frame_type, payload in ask_frames(op, args):
            await link.send(frame_type, payload)
        frame: Frame = await link.receive()
        if frame.type != FrameType.STARTED:
            raise refusal(frame)
        shape = convert(frame, _StartedShape)
        return ProcessLink(link, shape.pid, shape.offset)
    raise AgentLostError(f"the agent did not start the process within {_START_S:g} s")


async def send_input(link: Link, pid: int, data: bytes, *, end: bool) -> None:
    """Input for a process that somebody else follows, or nobody."""
    for frame_type, payload in ask_frames("process_input", {"pid": pid}):
        await link.send(frame_type, payload)
    try:
        await ProcessLink(link, pid, 0).send_stdin(data)
        if end:
            await link.send(FrameType.STDIN, b"")
        await link.send(FrameType.PIECE, b"")
    except AgentLostError:
        pass  # an agent that has closed may have said why
    answer = await link.receive()
    if answer.type != FrameType.ANSWER:
        raise refusal(answer)
