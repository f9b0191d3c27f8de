"""`/v1/sandboxes`: making, finding and ending sandboxes, their times, metrics and logs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import Response
from starlette.routing import Route

from mayfly.errors import InvalidRequestError
from mayfly.sandbox_model import ChangeTimeout, CreateSandbox
from mayfly.server.answers import answer
from mayfly.server.asked import OFFSET_MAX, body_of, number_of, sandbox_id_of, sandbox_of, sandboxes_of
from mayfly.server.lines import until_disconnect

if TYPE_CHECKING:
    from starlette.requests import Request

    from mayfly.sandbox_model import SandboxInfo
    from mayfly.server.contract import NodeService

__all__ = ["sandbox_routes"]

_STATES = frozenset({"running", "ended", "lost"})


def sandbox_routes(node: NodeService) -> list[Route]:
    """Their routes over `node`."""
    handlers = _Handlers(node)
    one = "/v1/sandboxes/{id}"
    return [
        Route("/v1/sandboxes", handlers.create, methods=["POST"]),
        Route("/v1/sandboxes", handlers.list, methods=["GET"]),
        Route(one, handlers.find, methods=["GET"]),
        Route(one, handlers.kill, methods=["DELETE"]),
        Route(f"{one}/timeout", handlers.timeout, methods=["POST"]),
        Route(f"{one}/metrics", handlers.metrics, methods=["GET"]),
        Route(f"{one}/logs", handlers.logs, methods=["GET"]),
    ]


class _Handlers:
    def __init__(self, node: NodeService) -> None:
        self._node = node

    async def create(self, request: Request) -> Response:
        wanted = await body_of(request, CreateSandbox)
        made: list[SandboxInfo] = []

        async def make() -> None:
            made.append(await sandboxes_of(self._node).create(wanted))

        await until_disconnect(request.receive, make, at_once=True)  # nobody would have what was made
        return answer(made[0], status=201) if made else Response(status_code=400)

    async def list(self, request: Request) -> Response:
        state = request.query_params.get("state")
        if state is not None and state not in _STATES:
            raise InvalidRequestError(f"state must be one of ended, lost, running, not {state[:40]!r}", field="state")
        found = sandboxes_of(self._node).list()
        return answer({"sandboxes": [info for info in found if state in (None, info.state)]})

    async def find(self, request: Request) -> Response:
        return answer(sandboxes_of(self._node).info(sandbox_id_of(request)))

    async def kill(self, request: Request) -> Response:
        return answer(await sandboxes_of(self._node).kill(sandbox_id_of(request)))

    async def timeout(self, request: Request) -> Response:
        sandbox = sandbox_of(request, self._node)
        sandbox.change_timeout(await body_of(request, ChangeTimeout))
        return answer(sandbox.info())

    async def metrics(self, request: Request) -> Response:
        async with sandbox_of(request, self._node).using() as guest:
            return answer(await guest.metrics())

    async def logs(self, request: Request) -> Response:
        log = sandbox_of(request, self._node).log
        offset = number_of(request, "from", least=0, most=OFFSET_MAX, default=0)
        return answer({"entries": log.entries(offset), "next": log.next})
