"""What happens to files, as it happens: inotify, with the rights of the sandbox's user."""

from __future__ import annotations

import os
import stat
import struct

from mayfly.agent import files, kernel
from mayfly.agent.fields import RequestError, truth
from mayfly.agent.loop import READ
from mayfly.guest.frames import FrameType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from mayfly.agent.connection import Connection
    from mayfly.agent.server import Server
    from mayfly.guest.frames import Frame

__all__ = ["begin_watch"]

_FLAGS = kernel.IN_FLAGS
_MASK = sum(_FLAGS[name] for name in ("modify", "attrib", "moved_from", "moved_to", "create", "delete", "delete_self"))
_EVENT = struct.Struct("iIII")
_WATCHES_MAX = 1024
_BUFFER_BYTES = 64 * 1024
_KINDS = (
    ("create", "created"),
    ("moved_to", "created"),
    ("delete", "removed"),
    ("delete_self", "removed"),
    ("moved_from", "removed"),
    ("modify", "modified"),
    ("attrib", "attributes"),
)


class _Watch:
    """Sends events until the host closes. Those that it does not keep up with are dropped, and it is told so."""

    full = False

    def __init__(self, server: Server, connection: Connection, path: str, *, recursive: bool) -> None:
        self._server = server
        self._connection = connection
        self._recursive = recursive
        self._paths: dict[int, str] = {}
        self._lost = False
        self._fd = kernel.inotify()
        try:
            with files.AsUser(server.settings):
                self._add(path)
                if recursive:
                    self._add_below(path)
        except BaseException:
            os.close(self._fd)
            raise
        server.loop.watch(self._fd, READ, self._ready)

    def _add(self, path: str) -> None:
        if len(self._paths) >= _WATCHES_MAX:
            raise RequestError("file_error", f"more than {_WATCHES_MAX} directories to watch")
        self._paths[kernel.inotify_add(self._fd, path, _MASK)] = path

    def _add_below(self, path: str) -> None:
        for directory, below, _ in os.walk(path):
            for name in below:
                each = os.path.join(directory, name)
                if not os.path.islink(each):
                    self._add(each)

    def _ready(self, _: int) -> None:
        try:
            data = os.read(self._fd, _BUFFER_BYTES)
        except BlockingIOError:
            return
        items: list[dict[str, object]] = []
        start = 0
        while start < len(data):
            watch, mask, _, length = _EVENT.unpack_from(data, start)
            start += _EVENT.size
            name = os.fsdecode(data[start : start + length].rstrip(b"\0"))
            start += length
            self._take(watch, mask, name, items)
        self._send(items)

    def _take(self, watch: int, mask: int, name: str, items: list[dict[str, object]]) -> None:
        if mask & _FLAGS["overflow"]:
            self._lost = True
            return
        directory = self._paths.get(watch)
        if directory is None:
            return
        if mask & _FLAGS["ignored"]:
            del self._paths[watch]
            return
        path = os.path.join(directory, name) if name else directory
        is_directory = bool(mask & _FLAGS["isdir"])
        if mask & _FLAGS["delete_self"] and len(self._paths) > 1:
            return  # the directory above tells
        kind = next((word for flag, word in _KINDS if mask & _FLAGS[flag]), None)
        if kind is None:
            return
        event = _event(kind, path, is_directory=is_directory)
        if items and items[-1] == event:
            return  # a file that is written in many pieces
        items.append(event)
        if self._recursive and is_directory and kind == "created":
            self._add_new(path, items)

    def _add_new(self, path: str, items: list[dict[str, object]]) -> None:
        """A new directory, and what was put into it before it was watched."""
        try:
            with files.AsUser(self._server.settings):
                self._add(path)
                for entry in os.scandir(path):
                    is_directory = entry.is_dir(follow_symlinks=False)
                    items.append(_event("created", entry.path, is_directory=is_directory))
                    if is_directory:
                        self._add_new(entry.path, items)
        except RequestError:
            self._lost = True

    def _send(self, items: list[dict[str, object]]) -> None:
        if self._connection.congested:
            self._lost = True
            return
        if self._lost:
            self._lost = False
            items.append(_event("overflow", "", is_directory=False))
        for item in items:  # one by one: paths may be long
            self._connection.send(FrameType.PART, {"items": [item]})

    def frame(self, _: Frame) -> None:
        """Nothing may follow."""
        raise RequestError("bad_request", "nothing may follow this request")

    def resume_output(self) -> None:
        """Says what was lost meanwhile."""
        if self._lost:
            self._send([])

    def abort(self) -> None:
        """Ends the watch."""
        if self._fd >= 0:
            self._server.loop.forget(self._fd)
            os.close(self._fd)
            self._fd = -1


def _event(kind: str, path: str, *, is_directory: bool) -> dict[str, object]:
    shown = os.fsencode(path).decode("utf-8", "replace")
    return {"kind": kind, "path": shown, "is_directory": is_directory}


def begin_watch(server: Server, connection: Connection, args: dict[str, Any]) -> _Watch:
    """The operation `file_watch`: ANSWER, then PARTs of events."""
    path = files.path_of(server.settings, args)
    recursive = truth(args, "recursive")
    with files.AsUser(server.settings):
        if recursive and not stat.S_ISDIR(os.stat(path).st_mode):
            raise RequestError("file_error", "this is no directory")
    watch = _Watch(server, connection, path, recursive=recursive)
    connection.send(FrameType.ANSWER, {})
    return watch
