"""Request bodies, bounded while they are read and with a deadline on every wait."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from mayfly.errors import InvalidRequestError
from mayfly.server.answers import BadBodyError

if TYPE_CHECKING:
    from starlette.requests import Request

__all__ = ["BODY_MAX_BYTES", "read_json_body"]

BODY_MAX_BYTES = 2 * 1024 * 1024
"""The largest JSON body that is taken."""

_TOTAL_S = 60.0


async def read_json_body(request: Request) -> bytes:
    """The body of a request that must be JSON.

    BadBodyError 415 for another type, 413 over `BODY_MAX_BYTES`, 408 when it takes longer than a minute;
    starlette's ClientDisconnect when the client goes away.
    """
    kind = request.headers.get("content-type", "").split(";", 1)[0].strip().lower()
    if kind != "application/json":
        found = f", not {kind[:60]!r}" if kind else ""
        raise BadBodyError(
            415, InvalidRequestError(f"the content type must be application/json{found}", field="content-type")
        )
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared[:20]) > BODY_MAX_BYTES:
        raise _too_large()
    body = bytearray()
    try:
        with anyio.fail_after(_TOTAL_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > BODY_MAX_BYTES:
                    raise _too_large()
    except TimeoutError:
        raise BadBodyError(
            408, InvalidRequestError(f"the body must come within {_TOTAL_S:.0f} s", field="body", retryable=True)
        ) from None
    return bytes(body)


def _too_large() -> BadBodyError:
    return BadBodyError(
        413, InvalidRequestError(f"the body must be at most {BODY_MAX_BYTES // 1024**2} MiB of JSON", field="body")
    )
