"""The routes of templates: listed, made ahead of their first use, removed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from starlette.routing import Route

from mayfly.errors import InvalidRequestError
from mayfly.node.templates import TemplateRequest
from mayfly.server.answers import answer
from mayfly.server.body import read_json_body
from mayfly.validation import convert_values

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from mayfly.server.contract import NodeService

__all__ = ["template_routes"]


def template_routes(node: NodeService) -> list[Route]:
    """`/v1/templates` over `node`."""

    async def listed(_: Request) -> Response:
        return answer({"templates": await node.templates.list()})

    async def build(request: Request) -> Response:
        return answer(await node.templates.build(_wanted(await read_json_body(request))))

    async def remove(request: Request) -> Response:
        return answer(await node.templates.remove(request.path_params["key"]))

    return [
        Route("/v1/templates", listed, methods=["GET"]),
        Route("/v1/templates", build, methods=["POST"]),
        Route("/v1/templates/{key}", remove, methods=["DELETE"]),
    ]


def _wanted(body: bytes) -> TemplateRequest:
    try:
        values = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequestError(f"the body must be a JSON object in UTF-8: {error}", field="body") from None
    return convert_values(values, TemplateRequest)
