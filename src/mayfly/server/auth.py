"""Who may ask: on TCP the bearer of the token, on the Unix socket whoever its mode lets open it."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from starlette.websockets import WebSocket

from mayfly.errors import AuthError
from mayfly.server.answers import error_answer

if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from typing import Any

    from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["TokenGuard", "is_authorized"]

_OPEN_PATHS = frozenset({"/healthz"})


def is_authorized(scope: MutableMapping[str, Any], token: str | None) -> bool:
    """Whether the request carries `token`, needs none (None), or came through the Unix socket."""
    if token is None or _came_by_unix_socket(scope):
        return True
    given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
    scheme, _, credentials = given.partition(b" ")
    return hmac.compare_digest(credentials.strip(), token.encode()) and scheme.lower() == b"bearer"


def _came_by_unix_socket(scope: MutableMapping[str, Any]) -> bool:
    # uvicorn takes both from the socket, never from headers (proxy headers are off): a TCP peer always has an
    # address, and a TCP listener always has a port.
    server = scope.get("server")
    return scope.get("client") is None and server is not None and server[1] is None and server[0].startswith("/")


class TokenGuard:
    """ASGI middleware that answers 401 to whoever `is_authorized` does not let in."""

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, or refuse."""
        kind = scope["type"]
        if kind not in {"http", "websocket"} or scope["path"] in _OPEN_PATHS or is_authorized(scope, self._token):
            await self._app(scope, receive, send)
            return
        refusal = error_answer(AuthError("the bearer token is missing or wrong", field="authorization"))
        if kind == "websocket":
            await WebSocket(scope, receive, send).send_denial_response(refusal)
        else:
            await refusal(scope, receive, send)
