"""A node and its listeners as one process: signals, idle exit, orderly end."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import anyio
import msgspec
import structlog

from mayfly.host.tasks import single_error
from mayfly.node.assemble import NodeOptions, open_node
from mayfly.server.app import create_app
from mayfly.server.run import serve

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mayfly.host.paths import StatePaths
    from mayfly.node.service import Node

__all__ = ["Listen", "serve_node"]

_log = structlog.get_logger("mayfly.server")

_IDLE_CHECKS = 20


class Listen(msgspec.Struct, frozen=True, kw_only=True):
    """Where a node listens and when it ends by itself. `token` guards every listener it is given for."""

    unix_socket: Path | None = None
    socket_mode: int = 0o600
    socket_gid: int | None = None
    tcp: tuple[str, int] | None = None
    token: str | None = None
    idle_exit_s: float = 0.0


async def serve_node(
    paths: StatePaths, options: NodeOptions, listen: Listen, *, on_ready: Callable[[], None] = lambda: None
) -> None:
    """Serve until a signal (SIGTERM, SIGINT) or until idle for `idle_exit_s` (0: for ever)."""
    paths.make()
    socket = listen.unix_socket
    files = () if socket is None else (socket, socket.with_name(f"{socket.name}.lock"))
    with single_error():  # of the groups below: who starts a node is told one thing
        async with open_node(paths, options, files=files) as node, anyio.create_task_group() as group:
            stop = anyio.Event()
            group.start_soon(_stop_at_signal, node, stop)
            if listen.idle_exit_s > 0:
                group.start_soon(_stop_when_idle, node, stop, listen.idle_exit_s)
            await serve(
                create_app(node, token=listen.token),
                unix_socket=listen.unix_socket,
                socket_mode=listen.socket_mode,
                socket_gid=listen.socket_gid,
                tcp=listen.tcp,
                stop=stop,
                on_ready=lambda _: on_ready(),
            )
            group.cancel_scope.cancel()


async def _stop_at_signal(node: Node, stop: anyio.Event) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for signum in signals:
            _log.info("stopping", signal=signal.Signals(signum).name)
            node.drain()
            stop.set()
            return


async def _stop_when_idle(node: Node, stop: anyio.Event, idle_exit_s: float) -> None:
    while node.running or time.monotonic() - node.last_active < idle_exit_s:  # noqa: ASYNC110 - a deadline that moves
        await anyio.sleep(idle_exit_s / _IDLE_CHECKS)
    _log.info("stopping", idle_s=idle_exit_s)
    node.drain()
    stop.set()
