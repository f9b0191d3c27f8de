"""Files in a sandbox, streamed both ways in constant memory."""

from __future__ import annotations

import contextlib
from typing import IO, TYPE_CHECKING, Any, Literal, overload

import anyio.to_thread
import msgspec

from mayfly.client.trees import copy_down, copy_up
from mayfly.errors import FileMissingError, InvalidRequestError, NodeError
from mayfly.sandbox_model import FileEvent, FileInfo, MakeDirectory, RenameFile
from mayfly.validation import convert_values

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Sequence
    from pathlib import Path

    from mayfly.client.calls import Query, SandboxCalls

    Content = str | bytes | bytearray | memoryview | IO[bytes] | Iterable[bytes] | AsyncIterable[bytes]

__all__ = ["READ_MAX_BYTES", "AsyncFiles", "Listing"]

READ_MAX_BYTES = 512 * 1024 * 1024
"""The largest file that `read` takes into memory."""

_CHUNK_BYTES = 256 * 1024
_STALL_S = 60.0


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """What is in a directory. `truncated` says that there is more than was listed."""

    files: list[FileInfo]
    truncated: bool = False


class AsyncFiles:
    """Files of one sandbox. Paths are absolute, or below `/home/user`; all is done as the sandbox's user.

    Methods raise FileMissingError, FilePresentError, FileDeniedError, NoSpaceError and FileSystemError, as a local
    file system would, besides what `AsyncSandbox` raises.
    """

    def __init__(self, live: Callable[[], SandboxCalls]) -> None:
        self._live = live

    @overload
    async def read(self, path: str, *, format: Literal["text"] = "text") -> str: ...
    @overload
    async def read(self, path: str, *, format: Literal["bytes"]) -> bytes: ...
    async def read(self, path: str, *, format: Literal["text", "bytes"] = "text") -> str | bytes:  # noqa: A002 - as E2B has it
        """A whole file of at most 512 MiB, as text (UTF-8, what is none is replaced) or as bytes."""
        if format not in {"text", "bytes"}:
            raise InvalidRequestError(f"format must be text or bytes, not {format!r}", field="format")
        content = bytearray()
        async with self.open_stream(path) as chunks:
            async for chunk in chunks:
                content += chunk
                if len(content) > READ_MAX_BYTES:
                    raise InvalidRequestError(
                        f"{path!r} has more than {READ_MAX_BYTES:,} bytes",
                        field="path",
                        hint="use open_stream or download",
                    )
        return bytes(content) if format == "bytes" else content.decode("utf-8", "replace")

    @contextlib.asynccontextmanager
    async def open_stream(
        self, path: str, *, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """A file's bytes as they come, from `offset` on and at most `length`: `async with … as chunks`."""
        for name, value in (("offset", offset), ("length", length or 0)):
            if not isinstance(value, int) or value < 0:
                raise InvalidRequestError(f"{name} must be a whole number from 0, not {value!r}", field=name)
        headers = {}
        if offset or length is not None:
            headers["Range"] = f"bytes={offset}-{'' if length is None else offset + max(length, 1) - 1}"
        async with self._live().open("GET", "/files", query={"path": path}, headers=headers) as answer:
            if headers and answer.status != 206:
                raise NodeError("the node answered with the whole file instead of a part", retryable=False)
            yield answer.chunks(deadline_s=_STALL_S, limit_bytes=length)

    async def write(self, path: str, content: Content, *, mode: int | None = None, append: bool = False) -> FileInfo:
        """Write a file, and the directories above it where they are missing.

        `content` is text, bytes, an open binary file, or an iterable of bytes, which is sent as it comes; `mode` are
        its rights, as 0o644. After an error, a part of it may be there.
        """
        if mode is not None and (not isinstance(mode, int) or not 0 <= mode <= 0o777):
            raise InvalidRequestError(f"mode must be from 0 to 0o777, not {mode!r}", field="mode")
        query: Query = {
            "path": path,
            "mode": None if mode is None else f"{mode:03o}",
            "append": True if append else None,
        }
        calls = self._live()
        async with calls.open("PUT", "/files", _sent(content), query=query) as answer:
            body = await answer.read(limit_bytes=1 << 20, deadline_s=_STALL_S)
        return calls.client.decoded(body, FileInfo)

    async def list(self, path: str = ".", *, depth: int = 1) -> Sequence[FileInfo]:
        """What is in a directory, `depth` levels down (1 to 32), sorted by path; at most 10,000 entries."""
        return (await self.listing(path, depth=depth)).files

    async def listing(self, path: str = ".", *, depth: int = 1) -> Listing:
        """As `list`, and whether there is more than was listed."""
        if not isinstance(depth, int) or not 1 <= depth <= 32:
            raise InvalidRequestError(f"depth must be from 1 to 32, not {depth!r}", field="depth")
        return await self._live().ask("GET", "/files/list", into=Listing, query={"path": path, "depth": depth})

    async def info(self, path: str) -> FileInfo:
        """What is there: kind, size, rights, times; of a link, the link."""
        return await self._live().ask("GET", "/files/info", into=FileInfo, query={"path": path})

    async def exists(self, path: str) -> bool:
        """Whether anything is there; of a link, the link."""
        try:
            await self.info(path)
        except FileMissingError:
            return False
        return True

    async def make_dir(self, path: str, *, parents: bool = True) -> FileInfo:
        """Make a directory; with `parents` those above it too, and one that is there is no error."""
        body = convert_values({"path": path, "parents": parents}, MakeDirectory)
        return await self._live().ask("POST", "/files/directory", body, into=FileInfo)

    async def rename(self, path: str, to: str) -> FileInfo:
        """Give it another name; a file of that name is replaced."""
        body = convert_values({"path": path, "to": to}, RenameFile)
        return await self._live().ask("POST", "/files/rename", body, into=FileInfo)

    async def remove(self, path: str, *, recursive: bool = False) -> None:
        """Remove a file, a link or an empty directory; with `recursive` a directory with all that is in it."""
        query: Query = {"path": path, "recursive": True if recursive else None}
        await self._live().ask("DELETE", "/files", into=type(None), query=query, deadline_s=120.0)

    @contextlib.asynccontextmanager
    async def watch(self, path: str, *, recursive: bool = False) -> AsyncIterator[AsyncIterator[FileEvent]]:
        """What happens in a directory, from when the block is entered: `async with … as events`."""
        calls = self._live()
        query: Query = {"path": path, "recursive": True if recursive else None}
        async with (
            calls.open("GET", "/files/watch", query=query) as answer,
            contextlib.aclosing(answer.lines(limit_bytes=1 << 20, deadline_s=_STALL_S)) as lines,
            contextlib.aclosing(_file_events(calls, lines)) as events,
        ):
            first = await anext(events, None)
            if first is None or first.kind != "ready":
                raise NodeError("the node did not say that it watches", sandbox_id=calls.id)
            yield events

    async def upload(
        self, local: str | Path, remote: str = ".", *, on_file: Callable[[str], object] | None = None
    ) -> Sequence[str]:
        """Copy files here into the sandbox: a file, a directory with all below it, or a glob (`data/*.csv`).

        A directory that is there, and `.`, `..` and names that end with `/`, are copied into; else `remote` is the new
        name. What is no regular file or directory is passed over. Returns the paths that were written.
        """
        return await copy_up(self, local, remote, on_file)

    async def download(
        self, remote: str, local: str | Path = ".", *, on_file: Callable[[str], object] | None = None
    ) -> Sequence[Path]:
        """Copy files of the sandbox here: a file, a directory with all below it, or a glob (`out/*.png`).

        As `upload`, the other way; directories that are missing here are made. Names that would lead out of `local` are
        refused; links, and what is no regular file or directory, are passed over. Returns the paths that were written.
        """
        return await copy_down(self, remote, local, on_file)


async def _file_events(calls: SandboxCalls, lines: AsyncIterable[bytes]) -> AsyncGenerator[FileEvent]:
    async for line in lines:
        if line:
            yield calls.client.decoded(line, FileEvent)


async def _sent(content: Content) -> AsyncIterator[bytes]:
    if isinstance(content, str):
        content = content.encode()
    if isinstance(content, (bytes, bytearray, memoryview)):
        view = memoryview(content)
        for start in range(0, len(view), _CHUNK_BYTES):
            yield bytes(view[start : start + _CHUNK_BYTES])
    elif hasattr(content, "read"):
        while chunk := await anyio.to_thread.run_sync(content.read, _CHUNK_BYTES):
            if not isinstance(chunk, bytes):
                raise InvalidRequestError(
                    "content must be a file that is open for bytes, not for text", field="content"
                )
            yield chunk
    elif hasattr(content, "__aiter__"):
        async for chunk in content:
            yield chunk
    else:
        # In a thread: it may block, as a stream of another sandbox does.
        chunks = iter(content)
        ended: Any = object()
        while (piece := await anyio.to_thread.run_sync(next, chunks, ended)) is not ended:
            yield piece
