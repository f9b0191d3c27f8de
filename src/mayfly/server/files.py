"""`/v1/sandboxes/{id}/files`: what is in a sandbox's file system, streamed both ways in constant memory."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import anyio
import msgspec
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Route

from mayfly.errors import InvalidRequestError, MayflyError
from mayfly.sandbox_model import FileEvent, MakeDirectory, RenameFile
from mayfly.server.answers import answer, error_answer
from mayfly.server.asked import body_of, flag_of, number_of, path_of, sandbox_of
from mayfly.server.lines import LineStream, until_disconnect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send

    from mayfly.node.sandbox import Sandbox
    from mayfly.server.contract import NodeService

__all__ = ["file_routes"]

_STALL_S = 300.0
_LIST_MAX = 10_000
_DEPTH_MAX = 32
_MODE = re.compile(r"[0-7]{3,4}")
_RANGE = re.compile(r"bytes=(\d{0,16})-(\d{0,16})")


def file_routes(node: NodeService) -> list[Route]:
    """Their routes over `node`."""
    handlers = _Handlers(node)
    files = "/v1/sandboxes/{id}/files"
    return [
        Route(files, handlers.read, methods=["GET"]),
        Route(files, handlers.write, methods=["PUT"]),
        Route(files, handlers.remove, methods=["DELETE"]),
        Route(f"{files}/info", handlers.info, methods=["GET"]),
        Route(f"{files}/list", handlers.list, methods=["GET"]),
        Route(f"{files}/directory", handlers.make_directory, methods=["POST"]),
        Route(f"{files}/rename", handlers.rename, methods=["POST"]),
        Route(f"{files}/watch", handlers.watch, methods=["GET"]),
    ]


class _Handlers:
    def __init__(self, node: NodeService) -> None:
        self._node = node

    async def read(self, request: Request) -> ASGIApp:
        sandbox, path = sandbox_of(request, self._node), path_of(request)
        if (asked := request.headers.get("range")) is None or not (match := _RANGE.fullmatch(asked)):
            return _Download(sandbox, path)
        async with sandbox.using() as guest:
            info = await guest.stat(path)
        if info.kind != "file":  # the size of what a link leads to is not known: the whole of it is an answer too
            return _Download(sandbox, path)
        chosen = _span(match[1], match[2], info.size)
        if chosen is None:
            error = InvalidRequestError(f"the file has {info.size:,} bytes, not {asked}", field="range")
            response = error_answer(error, status=416)
            response.headers["Content-Range"] = f"bytes */{info.size}"
            return response
        return _Download(sandbox, path, span=chosen, size=info.size)

    async def write(self, request: Request) -> Response:
        sandbox, path = sandbox_of(request, self._node), path_of(request)
        append = flag_of(request, "append", default=False)
        mode = request.query_params.get("mode")
        if mode is not None and not _MODE.fullmatch(mode):
            raise InvalidRequestError(f"mode must be three or four octal digits, not {mode[:40]!r}", field="mode")
        try:
            async with sandbox.using() as guest:
                rights = None if mode is None else int(mode, 8)
                return answer(await guest.write_file(path, _chunks(request), mode=rights, append=append))
        except ClientDisconnect:
            return Response(status_code=400)
        except MayflyError as error:
            response = error_answer(error)
            # What is left of the body is not worth reading.
            response.headers["Connection"] = "close"
            return response

    async def remove(self, request: Request) -> Response:
        path, recursive = path_of(request), flag_of(request, "recursive", default=False)
        async with sandbox_of(request, self._node).using() as guest:
            await guest.remove(path, recursive=recursive)
        return Response(status_code=204)

    async def info(self, request: Request) -> Response:
        path = path_of(request)
        async with sandbox_of(request, self._node).using() as guest:
            return answer(await guest.stat(path))

    async def list(self, request: Request) -> Response:
        path, depth = path_of(request), number_of(request, "depth", least=1, most=_DEPTH_MAX, default=1)
        async with sandbox_of(request, self._node).using() as guest:
            found = await guest.list_dir(path, depth=depth)
        return answer({"files": found[:_LIST_MAX], "truncated": len(found) >= _LIST_MAX})

    async def make_directory(self, request: Request) -> Response:
        sandbox = sandbox_of(request, self._node)
        wanted = await body_of(request, MakeDirectory)
        async with sandbox.using() as guest:
            return answer(await guest.make_dir(wanted.path, parents=wanted.parents))

    async def rename(self, request: Request) -> Response:
        sandbox = sandbox_of(request, self._node)
        wanted = await body_of(request, RenameFile)
        async with sandbox.using() as guest:
            return answer(await guest.rename(wanted.path, wanted.to))

    async def watch(self, request: Request) -> ASGIApp:
        sandbox, path = sandbox_of(request, self._node), path_of(request)
        recursive = flag_of(request, "recursive", default=False)

        async def produce(write: Callable[[bytes], Awaitable[None]]) -> None:
            async with sandbox.using() as guest, guest.watch(path, recursive=recursive) as events:
                await write(_line(FileEvent(kind="ready", path=path)))
                async for event in events:
                    await write(_line(event))

        return LineStream(produce)


class _Download:
    """ASGI response: a file, or `span` of it as (first, last) byte. An error before the first byte is an answer."""

    def __init__(self, sandbox: Sandbox, path: str, *, span: tuple[int, int] | None = None, size: int = 0) -> None:
        self._sandbox = sandbox
        self._path = path
        self._span = span
        self._size = size

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope
        started = False

        async def pass_on() -> None:
            nonlocal started
            first, length = 0, None
            if self._span is not None:
                first, length = self._span[0], self._span[1] - self._span[0] + 1
            async with (
                self._sandbox.using() as guest,
                guest.read_file(self._path, offset=first, length=length) as pieces,
            ):
                started = True
                await _timely(send, self._head())
                async for piece in pieces:
                    await _timely(send, {"type": "http.response.body", "body": piece, "more_body": True})
                await _timely(send, {"type": "http.response.body", "body": b"", "more_body": False})

        try:
            await until_disconnect(receive, pass_on)
        except (MayflyError, TimeoutError):
            if not started:
                raise
            # Nothing more is sent, so the connection is cut and the client sees that the end is missing.

    def _head(self) -> dict[str, object]:
        headers = [(b"content-type", b"application/octet-stream"), (b"accept-ranges", b"bytes")]
        if self._span is not None:
            place = f"bytes {self._span[0]}-{self._span[1]}/{self._size}"
            headers.append((b"content-range", place.encode("ascii")))
        return {"type": "http.response.start", "status": 206 if self._span else 200, "headers": headers}


def _span(first: str, last: str, size: int) -> tuple[int, int] | None:
    """First and last byte of a range of a file of `size`; None when it has none of them."""
    if first:
        low, high = int(first), min(int(last), size - 1) if last else size - 1
    elif last and int(last):
        low, high = max(0, size - int(last)), size - 1
    else:
        return None
    return (low, high) if low <= high else None


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    """The body; InvalidRequestError when nothing comes for five minutes."""
    stream = request.stream()
    while True:
        try:
            with anyio.fail_after(_STALL_S):
                chunk = await anext(stream, None)
        except TimeoutError:
            raise InvalidRequestError(f"nothing came for {_STALL_S:.0f} s", field="body", retryable=True) from None
        if chunk is None:
            return
        if chunk:
            yield chunk


def _line(event: FileEvent) -> bytes:
    return msgspec.json.encode(event) + b"\n"


async def _timely(send: Send, message: dict[str, object]) -> None:
    with anyio.fail_after(_STALL_S):
        await send(message)
