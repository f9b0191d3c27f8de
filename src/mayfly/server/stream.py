"""One execution for one HTTP client: its events as lines of JSON, and its end when the client goes away."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import msgspec
import structlog

from mayfly.errors import MayflyError, NotFoundError
from mayfly.model import Accepted, Event, Execution, ExecutionId, ExecutionRequest, Finished

if TYPE_CHECKING:
    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
    from starlette.types import Receive, Scope, Send

    from mayfly.server.contract import NodeService

__all__ = ["EventStream", "Running", "execute_attached"]

_log = structlog.get_logger(__name__)

_QUEUED_EVENTS = 4
_STALL_S = 300.0
_SLICE_BYTES = 256 * 1024


class Running:
    """The streamed executions of this server that have not finished, so that input can be refused after the end."""

    def __init__(self) -> None:
        self._ends: dict[ExecutionId, anyio.Event] = {}

    def begin(self, execution_id: ExecutionId) -> None:
        """The execution was accepted."""
        self._ends[execution_id] = anyio.Event()

    def end(self, execution_id: ExecutionId) -> None:
        """The execution is over; whoever waits on `ended` goes on."""
        if event := self._ends.pop(execution_id, None):
            event.set()

    def ended(self, execution_id: ExecutionId) -> anyio.Event:
        """Set when the execution is over; NotFoundError when it is not running."""
        if event := self._ends.get(execution_id):
            return event
        raise NotFoundError(f"no execution {execution_id} is running with a streamed input", field="id")


async def execute_attached(node: NodeService, request: ExecutionRequest, receive: Receive) -> Execution | None:
    """Run `request`; None when the client went away before the end, and the execution with it."""
    failure: MayflyError | None = None
    execution: Execution | None = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_cancel_on_disconnect, receive, tasks.cancel_scope)
        try:
            execution = await node.execute(request)
        except MayflyError as error:
            failure = error
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return execution


async def _cancel_on_disconnect(receive: Receive, scope: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


class EventStream:
    """ASGI response that runs `request` and sends each event as a line.

    The status is sent with the first event, so that a refusal before acceptance is an ordinary error answer. A
    reader that is slow slows its own program and nobody else: four events wait at most, and one that takes
    nothing for five minutes is treated as gone.
    """

    def __init__(self, node: NodeService, request: ExecutionRequest, running: Running) -> None:
        self._node = node
        self._request = request
        self._running = running
        self._id: ExecutionId | None = None
        self._started = False
        self._finished = False
        self._failure: MayflyError | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the execution; MayflyError when it was refused before anything was sent."""
        del scope
        outbox, inbox = anyio.create_memory_object_stream[Event](_QUEUED_EVENTS)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_cancel_on_disconnect, receive, tasks.cancel_scope)
                tasks.start_soon(self._write, inbox, send, tasks.cancel_scope)
                async with outbox:
                    await self._execute(outbox)
        finally:
            outbox.close()
            inbox.close()
            self._over()
        if self._failure is not None:
            if not self._started:
                raise self._failure
            # Nothing more is sent, so the connection is cut and the client sees that the end is missing.
            _log.error("execution failed after its stream began", id=self._id, error=str(self._failure))

    async def _execute(self, outbox: MemoryObjectSendStream[Event]) -> None:
        async def on_event(event: Event) -> None:
            if isinstance(event, Accepted):
                self._id = event.id
                self._running.begin(event.id)
            elif isinstance(event, Finished):
                self._finished = True
                self._over()
            await outbox.send(event)

        try:
            execution = await self._node.execute(self._request, on_event=on_event)
            if not self._finished:
                await on_event(Finished(execution=execution))
        except MayflyError as error:
            self._failure = error

    def _over(self) -> None:
        if self._id is not None:
            self._running.end(self._id)

    async def _write(self, inbox: MemoryObjectReceiveStream[Event], send: Send, scope: anyio.CancelScope) -> None:
        try:
            async for event in inbox:
                await self._send_line(event, send)
            if self._started and self._failure is None:
                await _timely(send, {"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            _log.warning("client takes nothing, dropped", id=self._id)
        scope.cancel()

    async def _send_line(self, event: Event, send: Send) -> None:
        if not self._started:
            self._started = True
            headers = [(b"content-type", b"application/x-ndjson"), (b"cache-control", b"no-store")]
            await _timely(send, {"type": "http.response.start", "status": 200, "headers": headers})
        line = memoryview(msgspec.json.encode(event) + b"\n")
        for start in range(0, len(line), _SLICE_BYTES):
            part = bytes(line[start : start + _SLICE_BYTES])
            await _timely(send, {"type": "http.response.body", "body": part, "more_body": True})


async def _timely(send: Send, message: dict[str, object]) -> None:
    with anyio.fail_after(_STALL_S):
        await send(message)
