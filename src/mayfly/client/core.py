"""The one asynchronous client of a node's API; `run`, `Sandbox` and the command line are faces of it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

import anyio
import msgspec

from mayfly.client.http import Answer, open_exchange
from mayfly.errors import (
    AuthError,
    CapacityError,
    InvalidRequestError,
    MayflyError,
    NodeError,
    NodeLostError,
    NodeVersionError,
    NotFoundError,
    error_from_code,
)
from mayfly.host.tasks import single_error
from mayfly.model import Accepted, Event, Execution, ExecutionId, ExecutionRequest, Finished

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping

    from mayfly.client.address import NodeAddress
    from mayfly.client.kept import Kept

__all__ = ["API_VERSION", "NodeClient"]

API_VERSION = 1
"""The version of the HTTP API that this client speaks."""

_SMALL_BYTES = 1024 * 1024
_SHORT_S = 10.0
_TAKEN = frozenset({200, 201, 202, 204, 206})
_MARGIN_S = 240.0
"""Beyond the program's own time: waiting for a place, launching and destroying on a slow machine."""
_ESCAPED = 6
"""JSON may write one byte of output as six."""

_EVENTS = msgspec.json.Decoder(Event)
_BY_STATUS: dict[int, type[MayflyError]] = {
    400: InvalidRequestError,
    401: AuthError,
    404: NotFoundError,
    503: CapacityError,
}

T = TypeVar("T")


class NodeClient:
    """Calls to the node at `address`. Holds no connection but one in `kept`, where that is given.

    All methods raise NodeUnavailableError, NodeLostError, AuthError, and what the node answers with.
    """

    def __init__(self, address: NodeAddress, *, kept: Kept | None = None) -> None:
        self.address = address
        self._kept = kept

    async def health(self) -> dict[str, Any]:
        """`GET /healthz`; NodeVersionError when the node speaks another version of the API."""
        health = await self._get("/healthz", dict[str, Any])
        if health.get("api") != API_VERSION:
            raise NodeVersionError(
                f"the node at {self.address} speaks API version {health.get('api')!r}, this client {API_VERSION}",
                hint="use the same version of Mayfly on both sides",
            )
        return health

    async def host(self) -> dict[str, Any]:
        """`GET /v1/host`."""
        return await self._get("/v1/host", dict[str, Any])

    async def pool(self) -> dict[str, Any]:
        """`GET /v1/pool`."""
        return await self._get("/v1/pool", dict[str, Any])

    async def templates(self) -> list[dict[str, Any]]:
        """`GET /v1/templates`: the snapshots that clones come from."""
        return (await self._get("/v1/templates", dict[str, list[dict[str, Any]]]))["templates"]

    async def build_template(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """`POST /v1/templates`: make one unless it is there; takes as long as a machine's boot."""
        return await self.ask("POST", "/v1/templates", dict(wanted), into=dict[str, Any], deadline_s=_MARGIN_S)

    async def remove_template(self, key: str) -> dict[str, Any]:
        """`DELETE /v1/templates/{key}`, `key` being the beginning of one; NotFoundError."""
        target = f"/v1/templates/{quote(key, safe='')}"
        return await self.ask("DELETE", target, into=dict[str, Any], deadline_s=_MARGIN_S)

    async def find(self, execution_id: ExecutionId) -> Execution:
        """A finished execution that the node remembers; NotFoundError."""
        return await self._get(f"/v1/executions/{execution_id}", Execution, limit_bytes=1024 * _SMALL_BYTES)

    async def execute(
        self,
        request: ExecutionRequest,
        *,
        on_event: Callable[[Event], Awaitable[None]] | None = None,
        stdin: AsyncIterable[bytes] | None = None,
    ) -> Execution:
        """Run a program. With `on_event` or `stdin` it is streamed: events come as they happen, input goes as it comes.

        InvalidRequestError and CapacityError before it starts. Cancelling ends the execution on the node.
        """
        if on_event is not None or stdin is not None:
            return await self._execute_streamed(request, on_event, stdin)
        deadline_s = request.limits.timeout_s + _MARGIN_S
        async with self._posted(request, "", deadline_s) as answer:
            body = await answer.read(limit_bytes=_answer_limit(request), deadline_s=_SHORT_S)
        return self.decoded(body, Execution)

    async def _execute_streamed(
        self,
        request: ExecutionRequest,
        on_event: Callable[[Event], Awaitable[None]] | None,
        stdin: AsyncIterable[bytes] | None,
    ) -> Execution:
        request = msgspec.structs.replace(request, stdin_stream=stdin is not None)
        deadline_s = request.limits.timeout_s + _MARGIN_S
        limit_bytes = _answer_limit(request)
        execution: Execution | None = None
        with single_error():
            async with (
                anyio.create_task_group() as tasks,
                self._posted(request, "?stream=true", deadline_s) as answer,
            ):
                async with contextlib.aclosing(answer.lines(limit_bytes=limit_bytes, deadline_s=deadline_s)) as lines:
                    async for line in lines:
                        event = self._event(line)
                        if isinstance(event, Accepted) and stdin is not None:
                            tasks.start_soon(self._send_stdin, event.id, stdin)
                        if on_event is not None:
                            await on_event(event)
                        if isinstance(event, Finished):
                            execution = event.execution
                            break
                tasks.cancel_scope.cancel()
        if execution is None:
            raise NodeLostError(f"the node at {self.address} ended the stream before the execution's end")
        return execution

    async def _send_stdin(self, execution_id: ExecutionId, stdin: AsyncIterable[bytes]) -> None:
        target = f"/v1/executions/{execution_id}/stdin"
        async with open_exchange(self.address, "POST", target, content=stdin, deadline_s=_SHORT_S) as answer:
            # 404: the program ended, or never started; the stream of events tells which.
            if answer.status not in {204, 404}:
                raise await self._refusal(answer)

    @contextlib.asynccontextmanager
    async def _posted(self, request: ExecutionRequest, query: str, deadline_s: float) -> AsyncIterator[Answer]:
        async with self.open("POST", f"/v1/executions{query}", request, deadline_s=deadline_s) as answer:
            yield answer

    async def ask(
        self,
        method: str,
        target: str,
        body: msgspec.Struct | dict[str, Any] | None = None,
        *,
        into: type[T],
        limit_bytes: int = _SMALL_BYTES,
        deadline_s: float = _SHORT_S,
    ) -> T:
        """One request, its answer decoded; `into` `None` for answers without a body."""
        async with self.open(method, target, body, deadline_s=deadline_s) as answer:
            content = await answer.read(limit_bytes=limit_bytes, deadline_s=_SHORT_S)
        return self.decoded(content or b"null", into)

    @contextlib.asynccontextmanager
    async def open(
        self,
        method: str,
        target: str,
        body: msgspec.Struct | dict[str, Any] | AsyncIterable[bytes] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        deadline_s: float = _SHORT_S,
    ) -> AsyncIterator[Answer]:
        """One request whose answer is read by the caller; a body that is a stream is sent as it comes."""
        fields = dict(headers or {})
        content: bytes | AsyncIterable[bytes] = b""
        if isinstance(body, (msgspec.Struct, dict)):
            fields["Content-Type"] = "application/json"
            content = msgspec.json.encode(body)
        elif body is not None:
            content = body
        exchange = open_exchange(
            self.address, method, target, headers=fields, content=content, deadline_s=deadline_s, kept=self._kept
        )
        async with exchange as answer:
            yield await self._accepted(answer)

    async def _get(self, target: str, into: type[T], *, limit_bytes: int = _SMALL_BYTES) -> T:
        return await self.ask("GET", target, into=into, limit_bytes=limit_bytes)

    async def _accepted(self, answer: Answer) -> Answer:
        if answer.status not in _TAKEN:
            raise await self._refusal(answer)
        return answer

    async def _refusal(self, answer: Answer) -> MayflyError:
        """The typed error that an answer other than 200 stands for."""
        return self.refusal(answer.status, await answer.read(limit_bytes=_SMALL_BYTES, deadline_s=_SHORT_S))

    def refusal(self, status: int, body: bytes) -> MayflyError:
        """The typed error that an answer with this status and body stands for."""
        try:
            fields = msgspec.json.decode(body, type=dict[str, dict[str, Any]])["error"]
            return error_from_code(str(fields.pop("code")), str(fields.pop("message")), **fields)
        except (msgspec.MsgspecError, KeyError, UnicodeDecodeError):
            kind = _BY_STATUS.get(status, NodeError)
            return kind(f"the node at {self.address} answered with HTTP status {status}")

    def _event(self, line: bytes) -> Event:
        try:
            event: Event = _EVENTS.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise self._not_ours(error) from None
        return event

    def decoded(self, body: bytes, into: type[T]) -> T:
        """`body` as `into`; NodeVersionError when it is something else."""
        try:
            return msgspec.json.decode(body, type=into)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise self._not_ours(error) from None

    def _not_ours(self, error: Exception) -> NodeVersionError:
        return NodeVersionError(f"the node at {self.address} sent what this client does not understand: {error}")


def _answer_limit(request: ExecutionRequest) -> int:
    """The most that an honest answer to `request` can be: both outputs, escaped, and the rest of an execution."""
    return 2 * _ESCAPED * request.limits.output_bytes + 4 * _SMALL_BYTES
