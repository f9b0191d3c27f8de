"""How the host asks an operation of the agent, and reads its answer or refusal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import anyio
import msgspec

from mayfly.errors import (
    AgentLostError,
    BusyError,
    FileDeniedError,
    FileMissingError,
    FilePresentError,
    FileSystemError,
    GuestError,
    InvalidRequestError,
    NoSpaceError,
    NotFoundError,
    ProtocolError,
    UnsupportedError,
)
from mayfly.guest.frames import PAYLOAD_MAX_BYTES, FrameError, FrameType, to_json
from mayfly.guest.link import open_link

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from mayfly.errors import MayflyError
    from mayfly.guest.frames import Frame
    from mayfly.guest.link import Link

__all__ = ["Asker", "ask", "ask_frames", "convert", "part_items", "printable", "refusal"]

_INLINE_MAX_BYTES = PAYLOAD_MAX_BYTES - 1024
_PARTS_MAX = 20_000
_ERRORS: dict[str, type[MayflyError]] = {
    "bad_request": InvalidRequestError,
    "busy": BusyError,
    "context_not_found": NotFoundError,
    "exists": FilePresentError,
    "file_error": FileSystemError,
    "no_space": NoSpaceError,
    "not_a_file": FileSystemError,
    "not_found": FileMissingError,
    "permission": FileDeniedError,
    "process_not_found": NotFoundError,
    "start_failed": InvalidRequestError,
    "unsupported": UnsupportedError,
}
_Shape = TypeVar("_Shape")


class _ErrorShape(msgspec.Struct, frozen=True, kw_only=True):
    code: Annotated[str, msgspec.Meta(pattern=r"^[a-z_]{1,64}$")]
    message: Annotated[str, msgspec.Meta(max_length=4096)]


def ask_frames(op: str, args: Mapping[str, object]) -> Iterator[tuple[int, bytes | Mapping[str, object]]]:
    """The frames that ask for `op`: the arguments inside where they fit, else after."""
    try:
        text, name = to_json(args).encode(), to_json({"op": op}).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequestError(f"{op}: cannot become JSON: {error}") from None
    if len(text) <= _INLINE_MAX_BYTES:
        yield FrameType.CALL, b'%s,"args":%s}' % (name[:-1], text)
        return
    yield FrameType.CALL, {"op": op, "args_bytes": len(text)}
    for start in range(0, len(text), PAYLOAD_MAX_BYTES):
        yield FrameType.PROGRAM, text[start : start + PAYLOAD_MAX_BYTES]


async def ask(
    link: Link, op: str, args: Mapping[str, object], *, deadline_s: float = 20.0
) -> tuple[Frame, list[dict[str, Any]]]:
    """Asks, and returns the ANSWER with the items of the PARTs before it. Raises what the agent refuses."""
    with anyio.move_on_after(deadline_s):
        for frame in ask_frames(op, args):
            await link.send(*frame)
        items: list[dict[str, Any]] = []
        while True:
            answer = await link.receive()
            if answer.type == FrameType.ANSWER:
                return answer, items
            items += part_items(answer)
            if len(items) > _PARTS_MAX:
                raise ProtocolError(f"the agent answered {op} with more than {_PARTS_MAX} items")
    raise AgentLostError(f"the agent did not answer {op} within {deadline_s:g} s")


def part_items(frame: Frame) -> list[dict[str, Any]]:
    """The items of a PART. Raises the refusal that came instead, or ProtocolError."""
    if frame.type != FrameType.PART:
        raise refusal(frame)
    return convert(frame, _PartShape).items


class _PartShape(msgspec.Struct, frozen=True, kw_only=True):
    items: Annotated[list[dict[str, Any]], msgspec.Meta(max_length=4096)]


def refusal(frame: Frame) -> MayflyError:
    """The error that an ERROR frame stands for; ProtocolError for any other frame, which does not fit then."""
    if frame.type != FrameType.ERROR:
        return ProtocolError(f"the agent sent a frame that does not fit here: {frame!r}")
    shape = convert(frame, _ErrorShape)
    kind = _ERRORS.get(shape.code)
    if kind is None:
        return GuestError(f"the agent refused: {shape.code}: {printable(shape.message)}")
    return kind(printable(shape.message))


def printable(text: str, longest: int = 500) -> str:
    """What cannot steer a terminal."""
    return "".join(char if char.isprintable() else "?" for char in text[:longest])


def convert(frame: Frame, shape: type[_Shape]) -> _Shape:
    """The payload as that shape. Raises ProtocolError naming the field."""
    try:
        return msgspec.convert(frame.json(), shape)
    except (FrameError, msgspec.ValidationError) as error:
        raise ProtocolError(f"the agent sent {frame!r}: {error}") from None


class Asker:
    """Asks the agent behind `vsock_path`. Keeps nothing open between two calls."""

    def __init__(self, vsock_path: Path, *, connect_deadline_s: float = 15.0) -> None:
        self._vsock_path = vsock_path
        self._connect_deadline_s = connect_deadline_s

    def _link(self) -> AbstractAsyncContextManager[Link]:
        return open_link(self._vsock_path, deadline_s=self._connect_deadline_s)

    async def _ask(
        self, op: str, args: Mapping[str, object], *, deadline_s: float = 20.0
    ) -> tuple[Frame, list[dict[str, Any]]]:
        async with self._link() as link:
            return await ask(link, op, args, deadline_s=deadline_s)
