"""The guest's files, as the host reads, writes and watches them."""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal

import anyio
import msgspec

from mayfly.errors import AgentLostError, FileSystemError, ProtocolError
from mayfly.guest.asking import Asker, ask_frames, convert, part_items, printable, refusal
from mayfly.guest.frames import PAYLOAD_MAX_BYTES, FrameType
from mayfly.sandbox_model import FileEvent, FileInfo, FileKind

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterator

    from mayfly.guest.frames import Frame
    from mayfly.guest.link import Link

__all__ = ["GuestFiles"]

_Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Path = Annotated[str, msgspec.Meta(max_length=8192)]
_STALL_S = 60.0
"""The agent writes and reads files of its own memory: silence this long is an agent that is gone."""


class _FileShape(msgspec.Struct, frozen=True, kw_only=True):
    path: _Path
    name: _Path
    kind: FileKind
    size: _Count
    mode: Annotated[int, msgspec.Meta(ge=0, le=0o7777)]
    modified_at: Annotated[float, msgspec.Meta(ge=-1e12, le=1e12)]
    uid: _Count
    gid: _Count
    target: _Path | None


class _SizeShape(msgspec.Struct, frozen=True, kw_only=True):
    size: _Count


class _EventShape(msgspec.Struct, frozen=True, kw_only=True):
    kind: Literal["created", "modified", "removed", "renamed", "attributes", "overflow"]
    path: _Path
    is_directory: bool


def _file_info(answer: Frame) -> FileInfo:
    """The file that an ANSWER tells of. Raises ProtocolError."""
    return msgspec.convert(msgspec.to_builtins(convert(answer, _FileShape)), FileInfo)


def _file_of(item: dict[str, Any]) -> FileInfo:
    """The file that an item of a PART tells of. Raises ProtocolError."""
    try:
        shape = msgspec.convert(item, _FileShape)
    except msgspec.ValidationError as error:
        raise ProtocolError(f"the agent sent a bad file: {error}") from None
    return msgspec.convert(msgspec.to_builtins(shape), FileInfo)


@contextmanager
def _about(path: str) -> Iterator[None]:
    """What the file system refuses says of which file."""
    try:
        yield
    except FileSystemError as error:
        error.message = f"{printable(path)}: {error.message}"
        raise


async def _next(link: Link) -> Frame:
    with anyio.move_on_after(_STALL_S):
        return await link.receive()
    raise AgentLostError(f"the agent said nothing for {_STALL_S:g} s")


@asynccontextmanager
async def _read_pieces(link: Link, path: str, offset: int, length: int | None) -> AsyncIterator[AsyncIterator[bytes]]:
    """The file's content; refused on entering the block."""
    for frame_type, payload in ask_frames("file_read", {"path": path, "offset": offset, "length": length}):
        await link.send(frame_type, payload)
    answer = await _next(link)
    if answer.type != FrameType.ANSWER:
        raise refusal(answer)
    convert(answer, _SizeShape)
    pieces = _pieces(link, length)
    try:
        yield pieces
    finally:
        await pieces.aclose()


async def _pieces(link: Link, length: int | None) -> AsyncGenerator[bytes]:
    count = 0
    while True:
        frame = await _next(link)
        if frame.type != FrameType.DATA:
            raise refusal(frame)
        if not frame.payload:
            return
        count += len(frame.payload)
        if length is not None and count > length:
            raise ProtocolError("the agent sent more of the file than was asked for")
        yield frame.payload


async def _write_pieces(
    link: Link, path: str, chunks: AsyncIterable[bytes], *, mode: int | None, append: bool
) -> FileInfo:
    """Writes the file, and learns at once when it is refused."""
    for frame_type, payload in ask_frames("file_write", {"path": path, "mode": mode, "append": append}):
        await link.send(frame_type, payload)
    answered = anyio.Event()
    outcome: list[Frame | Exception] = []
    failure: Exception | None = None

    async def listen(sending: anyio.CancelScope) -> None:
        try:
            outcome.append(await link.receive())
        except (AgentLostError, ProtocolError) as error:
            outcome.append(error)
        answered.set()
        sending.cancel()  # an answer before the end is a refusal

    async with anyio.create_task_group() as tasks:
        with anyio.CancelScope() as sending:
            tasks.start_soon(listen, sending)
            try:
                await _send_pieces(link, chunks)
            except AgentLostError:
                pass  # an agent that has closed may have said why
            except Exception as error:  # noqa: BLE001  of the caller's chunks; raised alone below, not in a group
                failure = error
        if failure is None:
            with anyio.move_on_after(_STALL_S):
                await answered.wait()
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return _written(outcome)


def _written(outcome: list[Frame | Exception]) -> FileInfo:
    if not outcome:
        raise AgentLostError(f"the agent did not answer within {_STALL_S:g} s")
    answer = outcome[0]
    if isinstance(answer, Exception):
        raise answer
    if answer.type != FrameType.ANSWER:
        raise refusal(answer)
    return _file_info(answer)


async def _send_pieces(link: Link, chunks: AsyncIterable[bytes]) -> None:
    async for chunk in chunks:
        view = memoryview(chunk)
        for start in range(0, len(view), PAYLOAD_MAX_BYTES):
            await _send_piece(link, bytes(view[start : start + PAYLOAD_MAX_BYTES]))
    await _send_piece(link, b"")


async def _send_piece(link: Link, piece: bytes) -> None:
    with anyio.move_on_after(_STALL_S) as sending:
        await link.send(FrameType.PIECE, piece)
    if sending.cancelled_caught:
        raise AgentLostError(f"the agent took nothing for {_STALL_S:g} s")


@asynccontextmanager
async def _watch_events(link: Link, path: str, *, recursive: bool) -> AsyncIterator[AsyncIterator[FileEvent]]:
    """What happens; the watch stands when the block is entered."""
    for frame_type, payload in ask_frames("file_watch", {"path": path, "recursive": recursive}):
        await link.send(frame_type, payload)
    answer = await _next(link)
    if answer.type != FrameType.ANSWER:
        raise refusal(answer)
    events = _events(link)
    try:
        yield events
    finally:
        await events.aclose()


async def _events(link: Link) -> AsyncGenerator[FileEvent]:
    while True:
        for item in part_items(await link.receive()):
            try:
                shape = msgspec.convert(item, _EventShape)
            except msgspec.ValidationError as error:
                raise ProtocolError(f"the agent sent a bad event: {error}") from None
            yield FileEvent(kind=shape.kind, path=shape.path, is_directory=shape.is_directory)


class GuestFiles(Asker):
    """What can be asked about files."""

    async def stat(self, path: str) -> FileInfo:
        """What is there; a link is not followed."""
        with _about(path):
            answer, _ = await self._ask("file_stat", {"path": path})
        return _file_info(answer)

    async def list_dir(self, path: str, *, depth: int = 1) -> list[FileInfo]:
        """What is in the directory, down to `depth` (1 to 64), sorted by path; at most 10,000 entries."""
        with _about(path):
            _, items = await self._ask("file_list", {"path": path, "depth": depth}, deadline_s=60.0)
        return [_file_of(item) for item in items]

    async def make_dir(self, path: str, *, parents: bool = True) -> FileInfo:
        """Makes a directory; with `parents` those above too, and one that is there is no error."""
        with _about(path):
            answer, _ = await self._ask("file_mkdir", {"path": path, "parents": parents})
        return _file_info(answer)

    async def rename(self, path: str, to: str) -> FileInfo:
        """Gives it another name; a file of that name is replaced."""
        with _about(f"{path} to {to}"):
            answer, _ = await self._ask("file_rename", {"path": path, "to": to})
        return _file_info(answer)

    async def remove(self, path: str, *, recursive: bool = False) -> None:
        """Removes a file, a link, an empty directory, or with `recursive` all of one."""
        with _about(path):
            await self._ask("file_remove", {"path": path, "recursive": recursive}, deadline_s=300.0)

    @asynccontextmanager
    async def read_file(
        self, path: str, *, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """The content in pieces. Of what is no regular file FileSystemError, on entering the block."""
        with _about(path):
            async with self._link() as link, _read_pieces(link, path, offset, length) as pieces:
                yield pieces

    async def write_file(
        self, path: str, chunks: AsyncIterable[bytes], *, mode: int | None = None, append: bool = False
    ) -> FileInfo:
        """Writes the file, and the directories above it where they are missing. After an error part of it is there."""
        with _about(path):
            async with self._link() as link:
                return await _write_pieces(link, path, chunks, mode=mode, append=append)

    @asynccontextmanager
    async def watch(self, path: str, *, recursive: bool = False) -> AsyncIterator[AsyncIterator[FileEvent]]:
        """What happens in a directory, or to a file, from when the block is entered."""
        with _about(path):
            async with self._link() as link, _watch_events(link, path, recursive=recursive) as events:
                yield events
