"""Errors as HTTP answers: `{"error": {...}}`, a status, and never a stack trace."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec
import structlog
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route

from mayfly.errors import (
    AuthError,
    BusyError,
    CapacityError,
    DeniedError,
    FileDeniedError,
    FileMissingError,
    FileSystemError,
    InvalidRequestError,
    MayflyError,
    NoSpaceError,
    NotFoundError,
    SandboxEndedError,
    UnsupportedError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request

__all__ = ["EXCEPTION_HANDLERS", "BadBodyError", "answer", "error_answer"]

_log = structlog.get_logger(__name__)

_STATUS: tuple[tuple[type[MayflyError], int], ...] = (
    (InvalidRequestError, 400),
    (AuthError, 401),
    (DeniedError, 403),
    (NotFoundError, 404),
    (CapacityError, 503),
    (SandboxEndedError, 410),
    (BusyError, 409),
    (UnsupportedError, 400),
    (FileMissingError, 404),
    (FileDeniedError, 403),
    (NoSpaceError, 507),
    (FileSystemError, 409),
)


class BadBodyError(Exception):
    """A request body that was refused with a status of its own: 408, 413 or 415."""

    def __init__(self, status: int, error: InvalidRequestError) -> None:
        super().__init__(str(error))
        self.status = status
        self.error = error


def answer(value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """`value` as JSON; structs included."""
    return Response(msgspec.json.encode(value), status, headers, media_type="application/json")


def error_answer(error: MayflyError, *, status: int | None = None) -> Response:
    """The answer for `error`: its status by type unless given, `Retry-After` and `WWW-Authenticate` where due."""
    if status is None:
        status = next((code for kind, code in _STATUS if isinstance(error, kind)), 500)
    headers = {}
    if isinstance(error, CapacityError):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    if isinstance(error, AuthError):
        headers["WWW-Authenticate"] = "Bearer"
    return answer({"error": error.to_dict()}, status=status, headers=headers)


async def _mayfly_error(_: Request, error: Exception) -> Response:
    return error_answer(error) if isinstance(error, MayflyError) else await _unexpected(_, error)


async def _bad_body(_: Request, error: Exception) -> Response:
    if not isinstance(error, BadBodyError):
        return await _unexpected(_, error)
    response = error_answer(error.error, status=error.status)
    # What is left of the body is not worth reading.
    response.headers["Connection"] = "close"
    return response


async def _http_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    if status == 404:
        return error_answer(NotFoundError(f"there is no {request.url.path}"))
    if status == 405:
        response = error_answer(
            InvalidRequestError(f"{request.method} is not possible on {request.url.path}", field="method"), status=405
        )
        response.headers["Allow"] = ", ".join(_methods(request))
        return response
    return error_answer(MayflyError("the request could not be handled", phase="request"), status=status)


def _methods(request: Request) -> list[str]:
    """What is possible on the path, whichever routes serve it."""
    routes = [route for route in request.app.routes if isinstance(route, Route)]
    return sorted({name for one in routes if one.path_regex.match(request.url.path) for name in one.methods or ()})


async def _unexpected(request: Request, error: Exception) -> Response:
    _log.error("unexpected error", path=request.url.path, kind=type(error).__name__)
    return error_answer(MayflyError("internal error; the node's log has the details", phase="request"), status=500)


EXCEPTION_HANDLERS = {
    MayflyError: _mayfly_error,
    BadBodyError: _bad_body,
    HTTPException: _http_error,
    Exception: _unexpected,
}
"""For `Starlette(exception_handlers=…)`."""
