"""What a request about a sandbox names: the sandbox, and its values in path and query, each checked."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeVar

from mayfly.errors import InvalidRequestError, NotFoundError, UnsupportedError
from mayfly.sandbox_model import RunId, SandboxId
from mayfly.server.body import read_json_body
from mayfly.validation import parse_values

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection, Request

    from mayfly.node.sandbox import Sandbox
    from mayfly.node.sandboxes import Sandboxes
    from mayfly.server.contract import NodeService

__all__ = [
    "OFFSET_MAX",
    "body_of",
    "context_of",
    "flag_of",
    "number_of",
    "path_of",
    "pid_of",
    "run_of",
    "sandbox_id_of",
    "sandbox_of",
    "sandboxes_of",
    "wants_stream",
]

T = TypeVar("T")

OFFSET_MAX = 2**53 - 1
_PATH_MAX_CHARS = 4096
_PATH_MAX_BYTES = 4096
_PID_MAX = 4 * 1024 * 1024
_SANDBOX_ID = re.compile(r"sb-[0-9a-f]{20}")
_RUN_ID = re.compile(r"run-[0-9a-f]{20}")
_CONTEXT_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


def sandboxes_of(node: NodeService) -> Sandboxes:
    """The node's sandboxes; UnsupportedError where it has none."""
    if node.sandboxes is None:
        raise UnsupportedError("this node makes no sandboxes that keep state")
    return node.sandboxes


def sandbox_id_of(request: HTTPConnection) -> SandboxId:
    """The id in the path; NotFoundError for what is none."""
    given = request.path_params["id"]
    if not _SANDBOX_ID.fullmatch(given):
        raise NotFoundError("there is no such sandbox", field="id")
    return SandboxId(given)


def sandbox_of(request: HTTPConnection, node: NodeService) -> Sandbox:
    """The sandbox in the path; NotFoundError, or SandboxEndedError where only its record is left."""
    return sandboxes_of(node).get(sandbox_id_of(request))


def context_of(request: Request) -> str:
    """The context in the path; NotFoundError for what is no id."""
    given: str = request.path_params["cid"]
    if not _CONTEXT_ID.fullmatch(given):
        raise NotFoundError("there is no such context", field="context")
    return given


def run_of(given: str) -> RunId:
    """A run's id; NotFoundError for what is none."""
    if not _RUN_ID.fullmatch(given):
        raise NotFoundError("there is no such run", field="run")
    return RunId(given)


def pid_of(request: HTTPConnection) -> int:
    """The process in the path; NotFoundError for what is none."""
    given = request.path_params["pid"]
    if not (given.isascii() and given.isdecimal() and len(given) <= 7 and 1 <= int(given) <= _PID_MAX):
        raise NotFoundError("there is no such command", field="pid")
    return int(given)


def number_of(request: HTTPConnection, name: str, *, least: int, most: int, default: int) -> int:
    """A whole number in the query; InvalidRequestError out of its range."""
    given = request.query_params.get(name)
    if given is None:
        return default
    if not (given.isascii() and given.isdecimal() and len(given) <= 16 and least <= int(given) <= most):
        raise InvalidRequestError(
            f"{name} must be a whole number from {least:,} to {most:,}, not {given[:40]!r}", field=name
        )
    return int(given)


def flag_of(request: HTTPConnection, name: str, *, default: bool) -> bool:
    """`true` or `false` in the query; InvalidRequestError for anything else."""
    given = request.query_params.get(name)
    if given is None:
        return default
    if given not in {"true", "false"}:
        raise InvalidRequestError(f"{name} must be true or false, not {given[:40]!r}", field=name)
    return given == "true"


def wants_stream(request: Request) -> bool:
    """Whether the answer is to be a stream of events."""
    return flag_of(request, "stream", default="application/x-ndjson" in request.headers.get("accept", ""))


def path_of(request: HTTPConnection) -> str:
    """The file that the query names. InvalidRequestError when it is missing, too long, or can be no path."""
    given = request.query_params.get("path")
    if not given:
        raise InvalidRequestError("path is missing", field="path")
    if "\0" in given:
        raise InvalidRequestError("path must not contain a NUL character", field="path")
    if len(given) > _PATH_MAX_CHARS or len(given.encode("utf-8", "surrogatepass")) > _PATH_MAX_BYTES:
        raise InvalidRequestError(f"path must be text of at most {_PATH_MAX_BYTES:,} bytes", field="path")
    return given


async def body_of(request: Request, into: type[T]) -> T:
    """The request's JSON body as `into`; see `read_json_body` and `parse_values` for what is raised."""
    return parse_values(await read_json_body(request), into)
