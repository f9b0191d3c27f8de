"""The ASGI application: routes and handlers. `protocol/openapi.yaml` describes it; a test holds them equal."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import anyio
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from mayfly.errors import InvalidRequestError, MayflyError, NotFoundError
from mayfly.model import ExecutionId
from mayfly.server.answers import EXCEPTION_HANDLERS, answer
from mayfly.server.auth import TokenGuard, is_authorized
from mayfly.server.body import read_json_body
from mayfly.server.code import code_routes
from mayfly.server.commands import command_routes
from mayfly.server.files import file_routes
from mayfly.server.sandboxes import sandbox_routes
from mayfly.server.sockets import socket_routes
from mayfly.server.stream import EventStream, Running, execute_attached
from mayfly.server.templates import template_routes
from mayfly.validation import parse_request

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from mayfly.server.contract import NodeService

__all__ = ["create_app"]

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_OPEN_HEALTH = ("status", "version", "api")


def create_app(node: NodeService, *, token: str | None) -> Starlette:
    """The application over `node`. With a `token`, requests that come by TCP must carry it as bearer."""
    handlers = _Handlers(node, token)
    app = Starlette(
        routes=[
            *code_routes(node),  # what is asked most is looked for first
            Route("/healthz", handlers.health, methods=["GET"]),
            Route("/v1/host", handlers.host, methods=["GET"]),
            Route("/v1/pool", handlers.pool, methods=["GET"]),
            *template_routes(node),
            Route("/v1/executions", _Posting(handlers), methods=["POST"]),
            Route("/v1/executions/{id}", handlers.find, methods=["GET"]),
            Route("/v1/executions/{id}/stdin", handlers.stdin, methods=["POST"]),
            *sandbox_routes(node),
            *command_routes(node),
            *file_routes(node),
            *socket_routes(node),
        ],
        middleware=[Middleware(TokenGuard, token=token)],
        exception_handlers=EXCEPTION_HANDLERS,
    )
    app.router.redirect_slashes = False
    return app


class _Posting:
    """`POST /v1/executions` as plain ASGI, since its answer decides about the connection itself."""

    def __init__(self, handlers: _Handlers) -> None:
        self._handlers = handlers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._handlers.execute(Request(scope, receive))
        await response(scope, receive, send)


class _Handlers:
    def __init__(self, node: NodeService, token: str | None) -> None:
        self._node = node
        self._token = token
        self._running = Running()

    async def health(self, request: Request) -> Response:
        health = self._node.health()
        if not is_authorized(request.scope, self._token):
            health = {key: health[key] for key in _OPEN_HEALTH if key in health}
        return answer(health)

    async def host(self, _: Request) -> Response:
        return answer(self._node.host())

    async def pool(self, _: Request) -> Response:
        return answer(self._node.pool())

    async def find(self, request: Request) -> Response:
        return answer(self._node.find(_id_of(request)))

    async def execute(self, request: Request) -> ASGIApp:
        streamed = _flag(request, "stream", default="application/x-ndjson" in request.headers.get("accept", ""))
        try:
            wanted = parse_request(await read_json_body(request))
        except ClientDisconnect:
            return Response(status_code=400)
        if streamed:
            return EventStream(self._node, wanted, self._running)
        if wanted.stdin_stream:
            raise InvalidRequestError("stdin_stream needs a streamed execution (?stream=true)", field="stdin_stream")
        execution = await execute_attached(self._node, wanted, request.receive)
        return Response(status_code=400) if execution is None else answer(execution)

    async def stdin(self, request: Request) -> Response:
        execution_id = _id_of(request)
        eof = _flag(request, "eof", default=True)
        ended = self._running.ended(execution_id)
        complete = False
        failure: MayflyError | None = None

        async def feed(scope: anyio.CancelScope) -> None:
            nonlocal complete, failure
            try:
                async for chunk in request.stream():
                    if chunk:
                        await self._node.feed_stdin(execution_id, chunk, eof=False)
                if eof:
                    await self._node.feed_stdin(execution_id, b"", eof=True)
                complete = True
            except ClientDisconnect:
                # Cut off in the middle, the input is not at its end: the program keeps waiting for the rest.
                complete = True
            except MayflyError as error:
                failure = error
            scope.cancel()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(feed, tasks.cancel_scope)
            await ended.wait()
            tasks.cancel_scope.cancel()
        if failure is not None:
            raise failure
        if not complete:
            raise NotFoundError(f"execution {execution_id} ended before it took all of the input", field="id")
        return Response(status_code=204)


def _id_of(request: Request) -> ExecutionId:
    given = request.path_params["id"]
    if not _ID.fullmatch(given):
        raise NotFoundError("there is no such execution", field="id")
    return ExecutionId(given)


def _flag(request: Request, name: str, *, default: bool) -> bool:
    given = request.query_params.get(name)
    if given is None:
        return default
    if given not in {"true", "false"}:
        raise InvalidRequestError(f"{name} must be true or false, not {given[:40]!r}", field=name)
    return given == "true"
