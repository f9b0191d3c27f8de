"""`/v1/sandboxes/{id}/contexts` and `/runs`: interpreters that keep state, and code run in them."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import anyio.lowlevel
from starlette.responses import Response
from starlette.routing import Route

from mayfly.errors import NotFoundError
from mayfly.sandbox_model import ContextId, CreateContext, RunCode
from mayfly.server.answers import answer
from mayfly.server.asked import (
    OFFSET_MAX,
    body_of,
    context_of,
    number_of,
    run_of,
    sandbox_of,
    sandboxes_of,
    wants_stream,
)
from mayfly.server.lines import LineStream, until_disconnect

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.types import ASGIApp

    from mayfly.node.code_run import CodeRun
    from mayfly.node.sandbox import Sandbox
    from mayfly.server.contract import NodeService

__all__ = ["code_routes"]


def code_routes(node: NodeService) -> list[Route]:
    """Their routes over `node`."""
    handlers = _Handlers(node)
    one = "/v1/sandboxes/{id}"
    context = one + "/contexts/{cid}"
    return [
        Route(f"{one}/runs", handlers.run, methods=["POST"]),
        Route(f"{one}/contexts", handlers.create_context, methods=["POST"]),
        Route(f"{one}/contexts", handlers.list_contexts, methods=["GET"]),
        Route(context, handlers.remove_context, methods=["DELETE"]),
        Route(f"{context}/restart", handlers.restart_context, methods=["POST"]),
        Route(f"{context}/interrupt", handlers.interrupt_context, methods=["POST"]),
        Route(one + "/runs/{rid}", handlers.find_run, methods=["GET"]),
        Route(one + "/runs/{rid}/events", handlers.events, methods=["GET"]),
    ]


class _Handlers:
    def __init__(self, node: NodeService) -> None:
        self._node = node

    async def create_context(self, request: Request) -> Response:
        sandbox = sandbox_of(request, self._node)
        wanted = await body_of(request, CreateContext)
        chosen = ContextId(f"ctx-{secrets.token_hex(6)}")
        async with sandbox.using() as guest:
            sandbox.room_for_context()
            sandbox.contexts[chosen] = wanted.lang
            try:
                info = await guest.create_context(
                    chosen,
                    lang=wanted.lang,
                    cwd=wanted.cwd,
                    env={**sandbox.request.envs, **wanted.envs},
                    pids=sandbox.limits.pids,
                )
            except BaseException:
                sandbox.contexts.pop(chosen, None)
                raise
        return answer(info, status=201)

    async def list_contexts(self, request: Request) -> Response:
        async with sandbox_of(request, self._node).using() as guest:
            return answer({"contexts": await guest.list_contexts()})

    async def remove_context(self, request: Request) -> Response:
        sandbox, context = self._named(request)
        async with sandbox.using() as guest:
            await guest.remove_context(context)
            sandbox.contexts.pop(context, None)
        return Response(status_code=204)

    async def restart_context(self, request: Request) -> Response:
        sandbox, context = self._named(request)
        async with sandbox.using() as guest:
            await guest.restart_context(context)
        return Response(status_code=204)

    async def interrupt_context(self, request: Request) -> Response:
        sandbox, context = self._named(request)
        run = request.query_params.get("run")
        nonce = None if run is None else sandboxes_of(self._node).runs.nonce(run_of(run))
        if run is None or nonce is not None:
            async with sandbox.using() as guest:
                await guest.interrupt_context(context, nonce=nonce)
        return Response(status_code=204)

    async def run(self, request: Request) -> ASGIApp:
        sandbox = sandbox_of(request, self._node)
        streamed = wants_stream(request)
        run = sandboxes_of(self._node).runs.start(sandbox, await body_of(request, RunCode))
        await anyio.lowlevel.checkpoint()  # the guest is asked first; what the answer needs is made meanwhile
        if streamed:
            return _stream(run, 0)

        async def wait() -> None:
            await run.finished.wait()

        await until_disconnect(request.receive, wait)
        return Response(status_code=400) if run.execution is None else answer(run.execution)

    async def find_run(self, request: Request) -> Response:
        run = self._run(request)
        if run.execution is None:
            raise NotFoundError(f"run {run.id} has not ended yet", field="run", retryable=True)
        return answer(run.execution)

    async def events(self, request: Request) -> ASGIApp:
        return _stream(self._run(request), number_of(request, "from", least=0, most=OFFSET_MAX, default=0))

    def _run(self, request: Request) -> CodeRun:
        sandbox = sandbox_of(request, self._node)
        return sandboxes_of(self._node).runs.get(sandbox, run_of(request.path_params["rid"]))

    def _named(self, request: Request) -> tuple[Sandbox, ContextId]:
        sandbox, context = sandbox_of(request, self._node), context_of(request)
        sandbox.language_of(context)
        return sandbox, ContextId(context)


def _stream(run: CodeRun, offset: int) -> LineStream:
    async def produce(write: Callable[[bytes], Awaitable[None]]) -> bytes:
        async for batch in run.events.follow(offset):
            await write(b"\n".join([*batch, b""]))
        return b"\n".join([*run.last_line(offset), b""])

    return LineStream(produce)
