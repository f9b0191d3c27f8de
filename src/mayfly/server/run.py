"""Listening: one uvicorn on a Unix socket and a TCP port at once, bounded, with deadlines, ended without leftovers."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio
import uvicorn

from mayfly.errors import HostError, NodeLostError, PermissionDeniedError
from mayfly.host.sockets import listens, short_path
from mayfly.server.answers import error_answer
from mayfly.server.connection import Connection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Bound", "serve"]

_KEEP_ALIVE_S = 15
_HEAD_MAX_BYTES = 32 * 1024
_BACKLOG = 256
_CONNECTIONS_MAX = 1024
_MESSAGE_MAX_BYTES = 1024 * 1024
"""The largest WebSocket message that is taken."""


@dataclass(frozen=True, slots=True)
class Bound:
    """What the server listens on; a port asked for as 0 is the real one here."""

    unix_socket: Path | None
    tcp: tuple[str, int] | None


async def serve(
    app: ASGIApp,
    *,
    unix_socket: Path | None = None,
    socket_mode: int = 0o600,
    socket_gid: int | None = None,
    tcp: tuple[str, int] | None = None,
    on_ready: Callable[[Bound], object] | None = None,
    stop: anyio.Event | None = None,
    graceful_s: int = 10,
) -> None:
    """Serve `app` until `stop` is set (running requests get `graceful_s` to end) or this is cancelled (they get none).

    Every request handler has ended, clean-up included, when this returns. Signals are the caller's affair.
    `on_ready` is called once both listeners accept. HostError when an address is taken or impossible,
    PermissionDeniedError when it may not be used.
    """
    with contextlib.ExitStack() as undo:
        sockets: list[socket.socket] = []
        if unix_socket is not None:
            sockets.append(undo.enter_context(_unix_listener(unix_socket, socket_mode, socket_gid)))
        if tcp is not None:
            sockets += undo.enter_context(_tcp_listeners(*tcp))
        server = uvicorn.Server(_configuration(app))
        server.config.load()
        server.lifespan = server.config.lifespan_class(server.config)
        await server.startup(sockets=sockets)
        grace_s = 0
        try:
            if on_ready is not None:
                on_ready(Bound(unix_socket, _address(sockets[-1]) if tcp else None))
            # uvicorn's own main loop wakes ten times a second for a date header that is off.
            await (stop or anyio.Event()).wait()
            grace_s = graceful_s
        finally:
            with anyio.CancelScope(shield=True):
                for listening in server.servers:
                    listening.close()
                undo.close()
                await _shut_down(server, sockets, grace_s)


def _configuration(app: ASGIApp) -> uvicorn.Config:
    return uvicorn.Config(
        _ending(app),
        http=Connection,
        ws="none",
        loop="asyncio",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        limit_concurrency=_CONNECTIONS_MAX,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_S,
        h11_max_incomplete_event_size=_HEAD_MAX_BYTES,
        ws_max_size=_MESSAGE_MAX_BYTES,
        ws_per_message_deflate=False,
    )


def _ending(app: ASGIApp) -> ASGIApp:
    """`app`, which answers that the node went away where the server's end cancels a request."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await app(scope, receive, watched)
        except asyncio.CancelledError:
            # Only `_shut_down` cancels this task, and there is nothing above that would have to know.
            if not started:
                gone = NodeLostError("the node was shut down before the execution's end")
                await error_answer(gone, status=503)(scope, receive, send)

    return wrapped


async def _shut_down(server: uvicorn.Server, sockets: list[socket.socket], grace_s: int) -> None:
    server.config.timeout_graceful_shutdown = grace_s
    await server.shutdown(sockets=sockets)
    # uvicorn cancels what is left and goes; a cancelled execution still destroys its VM, so that is waited for.
    if tasks := list(server.server_state.tasks):
        await asyncio.wait(tasks)


@contextlib.contextmanager
def _unix_listener(path: Path, mode: int, gid: int | None) -> Iterator[socket.socket]:
    """A listening socket at `path` with its rights, removed at the end; a stale one there is replaced.

    It is made beside and renamed into place, so that nobody meets it with other rights; a lock beside it keeps two
    servers from replacing each other.
    """
    lock = _locked(path)
    aside = path.with_name(f".{os.getpid()}.sock")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        try:
            aside.unlink(missing_ok=True)
            with short_path(aside) as name:
                listener.bind(name)
            aside.chmod(mode)
            if gid is not None:
                os.chown(aside, -1, gid)
            listener.setblocking(False)
            listener.listen(_BACKLOG)
            own = aside.stat()
            aside.rename(path)
        except OSError as error:
            raise _listen_error(str(path), error) from error
        try:
            yield listener
        finally:
            _remove(path, own)
    finally:
        listener.close()
        aside.unlink(missing_ok=True)
        os.close(lock)


def _locked(path: Path) -> int:
    """Descriptor of the lock beside `path`, once it is sure that nobody listens there."""
    try:
        lock = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _listen_error(str(path), error) from error
    if problem := _obstacle(path, lock):
        os.close(lock)
        raise HostError(f"cannot listen on {path}: {problem}")
    return lock


def _obstacle(path: Path, lock: int) -> str | None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return "another node listens there"
    if not os.path.lexists(path):
        return None
    if not stat.S_ISSOCK(path.lstat().st_mode):
        return "there is a file that is no socket"
    return "another node listens there" if listens(path) else None


def _remove(path: Path, own: os.stat_result) -> None:
    with contextlib.suppress(OSError):
        there = path.lstat()
        if (there.st_dev, there.st_ino) == (own.st_dev, own.st_ino):
            path.unlink()


@contextlib.contextmanager
def _tcp_listeners(host: str, port: int) -> Iterator[list[socket.socket]]:
    """Listening sockets on every address of `host`, on one port."""
    listeners: list[socket.socket] = []
    try:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            for family, address in dict.fromkeys((entry[0], entry[4][0]) for entry in found):
                chosen = _address(listeners[0])[1] if listeners else port
                bound = socket.create_server((str(address), chosen), family=family, backlog=_BACKLOG)
                bound.setblocking(False)
                listeners.append(bound)
        except OSError as error:
            raise _listen_error(f"{host}:{port}", error) from error
        yield listeners
    finally:
        for listener in listeners:
            listener.close()


def _address(listener: socket.socket) -> tuple[str, int]:
    name = listener.getsockname()
    return str(name[0]), int(name[1])


def _listen_error(where: str, error: OSError) -> HostError:
    kind = PermissionDeniedError if isinstance(error, PermissionError) else HostError
    return kind(f"cannot listen on {where}: {error.strerror or error}")
