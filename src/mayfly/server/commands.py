"""`/v1/sandboxes/{id}/commands`: processes in a sandbox, waited for, followed, fed and told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Route

from mayfly.errors import InvalidRequestError, MayflyError, NotFoundError
from mayfly.node.sandbox_commands import (
    admit_command,
    command_info,
    failed,
    follow_command,
    gather_command,
    refused,
    start_command,
)
from mayfly.sandbox_model import (
    CommandEnded,
    CommandResult,
    ResizeTerminal,
    SignalCommand,
    StartCommand,
)
from mayfly.server.answers import answer
from mayfly.server.asked import (
    OFFSET_MAX,
    body_of,
    flag_of,
    number_of,
    pid_of,
    sandbox_of,
    sandboxes_of,
    wants_stream,
)
from mayfly.server.lines import LineStream, until_disconnect

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from starlette.requests import Request
    from starlette.types import ASGIApp

    from mayfly.guest.processes import ProcessLink
    from mayfly.guest.sandbox import Guest
    from mayfly.node.sandbox import Sandbox
    from mayfly.sandbox_model import CommandEnd
    from mayfly.server.contract import NodeService

__all__ = ["command_routes"]


def command_routes(node: NodeService) -> list[Route]:
    """Their routes over `node`."""
    handlers = _Handlers(node)
    every = "/v1/sandboxes/{id}/commands"
    one = every + "/{pid}"
    return [
        Route(every, handlers.start, methods=["POST"]),
        Route(every, handlers.list, methods=["GET"]),
        Route(f"{one}/events", handlers.events, methods=["GET"]),
        Route(f"{one}/stdin", handlers.stdin, methods=["POST"]),
        Route(f"{one}/signal", handlers.signal, methods=["POST"]),
        Route(f"{one}/resize", handlers.resize, methods=["POST"]),
    ]


class _Handlers:
    def __init__(self, node: NodeService) -> None:
        self._node = node

    async def start(self, request: Request) -> ASGIApp:
        sandbox = sandbox_of(request, self._node)
        streamed = wants_stream(request)
        wanted = await body_of(request, StartCommand)
        if (wanted.cmd is None) == (wanted.args is None):
            raise InvalidRequestError("exactly one of cmd and args must be given", field="cmd")
        async with sandbox.using():
            denied = await admit_command(sandboxes_of(self._node).gate, sandbox, wanted)
        if wanted.background:
            return await self._in_background(sandbox, wanted, denied)
        if streamed and denied is not None:
            return _stream_refusal(denied)
        if streamed:
            return _stream(sandbox, lambda guest: start_command(guest, sandbox, wanted))
        if denied is not None:
            return answer(refused(denied))
        found: list[CommandResult] = []

        async def wait() -> None:
            async with sandbox.using() as guest, start_command(guest, sandbox, wanted) as link:
                found.append(await gather_command(link, sandbox.limits.output_bytes))

        await until_disconnect(request.receive, wait)
        return answer(found[0]) if found else Response(status_code=400)

    async def _in_background(self, sandbox: Sandbox, wanted: StartCommand, denied: CommandEnd | None) -> Response:
        if denied is not None:
            return answer(refused(denied))
        async with sandbox.using() as guest:
            async with start_command(guest, sandbox, wanted) as link:
                pid = link.pid
            for info in await guest.list_processes():
                if info.pid == pid:
                    return answer(command_info(info), status=201)
        raise NotFoundError(f"command {pid} is gone already", field="pid")

    async def list(self, request: Request) -> Response:
        async with sandbox_of(request, self._node).using() as guest:
            found = [command_info(info) for info in await guest.list_processes()]
        return answer({"commands": found})

    async def events(self, request: Request) -> ASGIApp:
        sandbox, pid = sandbox_of(request, self._node), pid_of(request)
        offset = number_of(request, "from", least=0, most=OFFSET_MAX, default=0)

        return _stream(sandbox, lambda guest: guest.attach_process(pid, offset=offset))

    async def stdin(self, request: Request) -> Response:
        sandbox, pid = sandbox_of(request, self._node), pid_of(request)
        end = flag_of(request, "eof", default=False)
        async with sandbox.using() as guest:
            try:
                async for chunk in request.stream():
                    if chunk:
                        await guest.write_stdin(pid, chunk)
            except ClientDisconnect:  # cut off in the middle, the input is not at its end
                return Response(status_code=400)
            if end:
                await guest.write_stdin(pid, b"", end=True)
        return Response(status_code=204)

    async def signal(self, request: Request) -> Response:
        sandbox, pid = sandbox_of(request, self._node), pid_of(request)
        wanted = await body_of(request, SignalCommand)
        async with sandbox.using() as guest:
            await guest.signal_process(pid, wanted.signal)
        return Response(status_code=204)

    async def resize(self, request: Request) -> Response:
        sandbox, pid = sandbox_of(request, self._node), pid_of(request)
        wanted = await body_of(request, ResizeTerminal)
        async with sandbox.using() as guest:
            await guest.resize_process(pid, wanted.cols, wanted.rows)
        return Response(status_code=204)


def _stream_refusal(end: CommandEnd) -> LineStream:
    async def produce(write: Callable[[bytes], Awaitable[None]]) -> None:
        await write(_line(CommandEnded(offset=0, end=end)))

    return LineStream(produce)


def _stream(sandbox: Sandbox, opening: Callable[[Guest], AbstractAsyncContextManager[ProcessLink]]) -> LineStream:
    """The events of a command that `opening` starts or finds; a failure on the way is its end too."""

    async def produce(write: Callable[[bytes], Awaitable[None]]) -> None:
        offset: int | None = None
        try:
            async with sandbox.using() as guest, opening(guest) as link:
                async for event in follow_command(link):
                    offset = event.offset
                    await write(_line(event))
        except MayflyError as error:
            if offset is None:
                raise
            await write(_line(CommandEnded(offset=offset, end=failed(error))))

    return LineStream(produce)


def _line(event: object) -> bytes:
    return msgspec.json.encode(event) + b"\n"
