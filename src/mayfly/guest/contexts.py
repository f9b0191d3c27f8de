"""Code that runs in a context of the guest, as the host follows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import anyio
import msgspec

from mayfly.errors import AgentLostError, ProtocolError
from mayfly.guest.asking import ask_frames, convert, printable, refusal
from mayfly.guest.frames import FrameType
from mayfly.guest.shapes import CodeEnd, CodeOutput
from mayfly.model import Usage
from mayfly.sandbox_model import CodeError, CodeResult, Cut

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mayfly.guest.frames import Frame
    from mayfly.guest.link import Link
    from mayfly.guest.shapes import CodeEvent, CodeRequest, Stream

__all__ = ["CodeRunLink", "UsageShape"]

_Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
_Milliseconds = Annotated[float, msgspec.Meta(ge=0, le=1e10)]
_Text = Annotated[str, msgspec.Meta(max_length=1 << 20)]
_STREAMS: dict[int, Stream] = {FrameType.STDOUT: "stdout", FrameType.STDERR: "stderr"}
_SLACK_BYTES = 4 << 20
_ITEMS_MAX = 1100
_KILL_S = 12.0
"""How long after its time a run may still report: interrupt, kill and sweep, on a slow machine."""
_Shape = TypeVar("_Shape")


class UsageShape(msgspec.Struct, frozen=True, kw_only=True):
    """What was used, as the agent says."""

    wall_ms: _Milliseconds
    cpu_ms: _Milliseconds
    mem_peak_bytes: _Count
    stdout_bytes: _Count
    stderr_bytes: _Count

    def usage(self) -> Usage:
        """The same as a value of the model."""
        return Usage(
            wall_ms=self.wall_ms,
            cpu_ms=self.cpu_ms,
            mem_peak_bytes=self.mem_peak_bytes,
            stdout_bytes=self.stdout_bytes,
            stderr_bytes=self.stderr_bytes,
        )


class _EndShape(msgspec.Struct, frozen=True, kw_only=True):
    nonce: str
    status: Literal["ok", "error", "timeout", "interrupted", "lost"]
    execution_count: _Count
    usage: UsageShape
    truncated: bool
    guest_ms: _Milliseconds
    state_lost: bool = False
    reason: Annotated[str, msgspec.Meta(max_length=2000)] = ""
    exit_code: Annotated[int, msgspec.Meta(ge=0, le=255)] | None = None


class _ItemShape(msgspec.Struct, frozen=True, kw_only=True):
    kind: Literal["result", "error"]
    bytes: _Count


class _CutShape(msgspec.Struct, frozen=True, kw_only=True):
    mime: Annotated[str, msgspec.Meta(max_length=128)]
    bytes: _Count


class _ResultShape(msgspec.Struct, frozen=True, kw_only=True):
    data: Annotated[dict[Annotated[str, msgspec.Meta(max_length=128)], msgspec.Raw], msgspec.Meta(max_length=64)]
    metadata: dict[str, object] = {}
    is_main_result: bool = False
    truncated: Annotated[list[_CutShape], msgspec.Meta(max_length=64)] = []


class _ErrorShape(msgspec.Struct, frozen=True, kw_only=True):
    name: Annotated[str, msgspec.Meta(max_length=1000)]
    value: _Text
    traceback: _Text = ""


class CodeRunLink:
    """One run over one link: what the agent may send, how much, and until when."""

    def __init__(self, link: Link, request: CodeRequest, on_event: Callable[[CodeEvent], Awaitable[None]]) -> None:
        self._link = link
        self._request = request
        self._on_event = on_event
        self._counts: dict[Stream, int] = {"stdout": 0, "stderr": 0}
        self._items = 0
        self._item_bytes = 0
        self._item: _ItemShape | None = None
        self._pieces: list[bytes] = []
        self._piece_bytes = 0

    async def to_end(self) -> CodeEnd:
        """Sends the request and takes events until the end. Raises what `Guest.run_code` does."""
        request = self._request
        args = {
            "context": request.context_id,
            "nonce": request.nonce,
            "code": request.code,
            "timeout_s": request.timeout_s,
            "env": request.env,
            "output_bytes": request.output_bytes,
            "result_bytes": request.result_bytes,
            "item_bytes": request.item_bytes,
            "figure_formats": list(request.figure_formats),
        }
        for frame_type, payload in ask_frames("run", args):
            await self._link.send(frame_type, payload)
        frame = await self._link.receive()  # its turn may be long in coming; the caller may cancel
        if frame.type == FrameType.END:
            return self._end(frame)
        if frame.type != FrameType.STARTED:
            raise refusal(frame)
        if request.timeout_s is None:
            return await self._follow()
        limit_s = request.timeout_s + _KILL_S
        with anyio.move_on_after(limit_s):
            return await self._follow()
        raise AgentLostError(f"the agent did not report the run's end within {limit_s:g} s")

    async def _follow(self) -> CodeEnd:
        while True:
            frame = await self._link.receive()
            stream = _STREAMS.get(frame.type)
            if stream is not None:
                self._counts[stream] += len(frame.payload)
                if self._counts[stream] > self._request.output_bytes:
                    raise ProtocolError(f"the agent sent more {stream} than output_bytes allows")
                await self._on_event(CodeOutput(stream=stream, data=frame.payload))
            elif frame.type == FrameType.ITEM:
                self._begin_item(convert(frame, _ItemShape))
            elif frame.type == FrameType.DATA and self._item is not None:
                await self._take_piece(self._item, frame.payload)
            elif frame.type == FrameType.END:
                return self._end(frame)
            else:
                raise refusal(frame)

    def _begin_item(self, item: _ItemShape) -> None:
        self._items += 1
        self._item_bytes += item.bytes
        if self._items > _ITEMS_MAX or self._item_bytes > self._request.result_bytes + _SLACK_BYTES:
            raise ProtocolError("the agent sent more results than result_bytes allows")
        self._item, self._pieces, self._piece_bytes = item, [], 0

    async def _take_piece(self, item: _ItemShape, piece: bytes) -> None:
        self._pieces.append(piece)
        self._piece_bytes += len(piece)
        if self._piece_bytes > item.bytes:
            raise ProtocolError("ITEM: more came than bytes says")
        if self._piece_bytes == item.bytes:
            payload, self._item, self._pieces = b"".join(self._pieces), None, []
            await self._on_event(_result(payload) if item.kind == "result" else _error(payload))

    def _end(self, frame: Frame) -> CodeEnd:
        shape = convert(frame, _EndShape)
        if shape.nonce != self._request.nonce:
            raise ProtocolError("the agent answered with another run's nonce")
        return CodeEnd(
            status=shape.status,
            execution_count=shape.execution_count,
            state_lost=shape.state_lost,
            reason=printable(shape.reason),
            exit_code=shape.exit_code,
            truncated=shape.truncated,
            usage=shape.usage.usage(),
            guest_ms=shape.guest_ms,
        )


def _decoded(payload: bytes, shape: type[_Shape], what: str) -> _Shape:
    try:
        return msgspec.json.decode(payload, type=shape)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"the guest sent a bad {what}: {error}") from None


def _result(payload: bytes) -> CodeResult:
    shape = _decoded(payload, _ResultShape, "result")
    data: dict[str, object] = {}
    for mime, raw in shape.data.items():
        value = _decoded(bytes(raw), object, "result")
        if not mime.endswith("json") and not isinstance(value, str):
            raise ProtocolError(f"the guest sent a bad result: {mime!r} must be text")
        data[mime] = value
    return CodeResult(
        data=data,
        is_main_result=shape.is_main_result,
        metadata=shape.metadata,
        truncated=tuple(Cut(mime=cut.mime, bytes=cut.bytes) for cut in shape.truncated),
    )


def _error(payload: bytes) -> CodeError:
    shape = _decoded(payload, _ErrorShape, "error")
    return CodeError(name=shape.name, value=shape.value, traceback=shape.traceback)
