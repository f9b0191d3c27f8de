"""The operations on files."""

from __future__ import annotations

import os
import stat
import time

from mayfly.agent import files
from mayfly.agent.fields import RequestError, number, optional_number, truth
from mayfly.agent.watching import begin_watch
from mayfly.guest.frames import PAYLOAD_MAX_BYTES, FrameType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from mayfly.agent.connection import Begin, Connection
    from mayfly.agent.server import Server
    from mayfly.guest.frames import Frame

__all__ = ["OPERATIONS"]

_SLICE_S = 0.004
_DEPTH_MAX = 64
_OFFSET_MAX = 1 << 50


class _Steps:
    """Work of many small steps, done in slices so that everything else goes on."""

    full = False

    def __init__(self, server: Server, connection: Connection, steps: Iterator[dict[str, object] | None]) -> None:
        self._server = server
        self._connection = connection
        self._steps = steps
        self._items: list[dict[str, object]] = []
        self._over = False
        self._slice()

    def _slice(self) -> None:
        if self._over or self._connection.congested:
            return
        until = time.monotonic() + _SLICE_S
        try:
            with files.AsUser(self._server.settings):
                for item in self._steps:
                    if item is not None:
                        self._items.append(item)
                    if time.monotonic() > until:
                        break
                else:
                    self._over = True
        except RequestError as error:
            self._over = True
            self._connection.fail(error.code, error.message)
            return
        self._send()
        if self._over:
            self._connection.send(FrameType.ANSWER, {})
            self._connection.finish()
        else:
            self._server.loop.call_in(0, self._slice)

    def _send(self) -> None:
        batch: list[dict[str, object]] = []
        size = 0
        for item in self._items:
            # In JSON a character takes six bytes at most.
            length = 300 + 6 * sum(len(str(item[field])) for field in ("path", "name", "target"))
            if batch and size + length > PAYLOAD_MAX_BYTES - 64:
                self._connection.send(FrameType.PART, {"items": batch})
                batch, size = [], 0
            batch.append(item)
            size += length
        if batch:
            self._connection.send(FrameType.PART, {"items": batch})
        self._items.clear()

    def frame(self, _: Frame) -> None:
        """Nothing may follow."""
        raise RequestError("bad_request", "nothing may follow this request")

    def resume_output(self) -> None:
        """The host has read."""
        self._server.loop.call_in(0, self._slice)

    def abort(self) -> None:
        """Stops after the present step."""
        self._over = True


class _Reading:
    """Sends a file in pieces. Owns `fd`."""

    full = False

    def __init__(self, connection: Connection, fd: int, length: int) -> None:
        self._connection = connection
        self._fd = fd
        self._left = length

    def resume_output(self) -> None:
        """Sends until the host does not keep up."""
        while self._fd >= 0 and not self._connection.congested:
            try:
                data = os.read(self._fd, min(PAYLOAD_MAX_BYTES, self._left)) if self._left else b""
            except OSError as error:
                refusal = files.refused(error)
                self._connection.fail(refusal.code, refusal.message)
                return
            self._left -= len(data)
            self._connection.send(FrameType.DATA, data)
            if not data:
                self.abort()
                self._connection.finish()

    def frame(self, _: Frame) -> None:
        """Nothing may follow."""
        raise RequestError("bad_request", "nothing may follow this request")

    def abort(self) -> None:
        """Closes the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class _Writing:
    """Writes what comes. Owns `fd`."""

    full = False

    def __init__(self, server: Server, connection: Connection, fd: int, path: str) -> None:
        self._server = server
        self._connection = connection
        self._fd = fd
        self._path = path

    def frame(self, frame: Frame) -> None:
        """A piece; an empty one is the end. Raises RequestError when it cannot be written."""
        if frame.type != FrameType.PIECE:
            raise RequestError("bad_request", "only PIECE may follow this request")
        if not frame.payload:
            self.abort()
            with files.AsUser(self._server.settings):
                answer = files.describe(self._path)
            self._connection.send(FrameType.ANSWER, answer)
            self._connection.finish()
            return
        rest = memoryview(frame.payload)
        with files.AsUser(self._server.settings):
            while rest:
                rest = rest[os.write(self._fd, rest) :]

    def resume_output(self) -> None:
        """Only the answer is sent."""

    def abort(self) -> None:
        """Closes the file; what has been written stays."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _answering(act: Callable[[str, dict[str, Any], Server], str | None]) -> Begin:
    """An operation that is one step, answered with what is at the path that it returns."""

    def begin(server: Server, connection: Connection, args: dict[str, Any]) -> None:
        path = files.path_of(server.settings, args)
        with files.AsUser(server.settings):
            shown = act(path, args, server)
            answer = {} if shown is None else files.describe(shown)
        connection.send(FrameType.ANSWER, answer)
        connection.finish()

    return begin


def _stat(path: str, _: dict[str, Any], __: Server) -> str:
    return path


def _make_directory(path: str, args: dict[str, Any], _: Server) -> str:
    if truth(args, "parents"):
        files.make_directories(path)
        if not os.path.isdir(path):
            raise RequestError("exists", "there is something else of that name")
    else:
        os.mkdir(path, 0o755)
    return path


def _rename(path: str, args: dict[str, Any], server: Server) -> str:
    to = files.path_of(server.settings, args, "to")
    os.rename(path, to)
    return to


def _list(server: Server, connection: Connection, args: dict[str, Any]) -> _Steps:
    depth = int(number(args, "depth", 1, _DEPTH_MAX))
    return _Steps(server, connection, files.walk(files.path_of(server.settings, args), depth))


def _remove(server: Server, connection: Connection, args: dict[str, Any]) -> _Steps:
    path = files.path_of(server.settings, args)
    return _Steps(server, connection, _removal(path, recursive=truth(args, "recursive")))


def _removal(path: str, *, recursive: bool) -> Iterator[None]:
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        os.unlink(path)
        return
    if not recursive:
        os.rmdir(path)
        return
    for directory, below, names in os.walk(path, topdown=False):
        for name in names:
            _gone(os.unlink, os.path.join(directory, name))
            yield None
        for name in below:  # links to directories are among them
            each = os.path.join(directory, name)
            _gone(os.unlink if os.path.islink(each) else os.rmdir, each)
            yield None
    os.rmdir(path)


def _gone(remove: Callable[[str], None], path: str) -> None:
    try:
        remove(path)
    except FileNotFoundError:
        pass  # somebody else was faster


def _read(server: Server, connection: Connection, args: dict[str, Any]) -> _Reading:
    offset = int(number(args, "offset", 0, _OFFSET_MAX))
    length = optional_number(args, "length", 0, _OFFSET_MAX)
    path = files.path_of(server.settings, args)
    with files.AsUser(server.settings):
        fd, size = files.open_for_reading(path, offset)
    connection.send(FrameType.ANSWER, {"size": size})
    reading = _Reading(connection, fd, _OFFSET_MAX if length is None else int(length))
    server.loop.call_in(0, reading.resume_output)
    return reading


def _write(server: Server, connection: Connection, args: dict[str, Any]) -> _Writing:
    mode = optional_number(args, "mode", 0, 0o7777)
    path = files.path_of(server.settings, args)
    append = truth(args, "append")
    with files.AsUser(server.settings):
        fd = files.open_for_writing(path, append=append)
        if mode is not None:
            os.fchmod(fd, int(mode))
    return _Writing(server, connection, fd, path)


OPERATIONS: dict[str, Begin] = {
    "file_stat": _answering(_stat),
    "file_list": _list,
    "file_mkdir": _answering(_make_directory),
    "file_rename": _answering(_rename),
    "file_remove": _remove,
    "file_read": _read,
    "file_write": _write,
    "file_watch": begin_watch,
}
