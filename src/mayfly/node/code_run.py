"""One run of code in a context: its events as they come, and its result."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Literal

import anyio
import msgspec

from mayfly.model import Stage, Usage, Verdict
from mayfly.node.clock import ms_since, rfc3339
from mayfly.node.collect import OutputCollector
from mayfly.node.event_log import EventLog
from mayfly.sandbox_model import (
    CodeAccepted,
    CodeError,
    CodeErrorEvent,
    CodeExecution,
    CodeFinished,
    CodeOutput,
    CodeResult,
    CodeResultEvent,
    CodeStage,
    CodeStatus,
    ContextId,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from mayfly.guest.shapes import CodeEnd
    from mayfly.guest.shapes import CodeEvent as GuestEvent
    from mayfly.model import ErrorInfo, Output
    from mayfly.sandbox_model import CodeLanguage, RunCode, RunId, SandboxId

__all__ = ["ITEM_BYTES", "RESULT_BYTES", "CodeRun"]

ITEM_BYTES = 1024 * 1024
"""The largest representation of one result."""
RESULT_BYTES = 16 * 1024 * 1024
"""All results of a run together."""

_BRISK_EVENTS = 5000
"""So many events are passed on one by one; after them output is gathered for `_GATHER_S`."""
_GATHER_S = 0.05
_RESULT_BYTES = 256
"""What a result costs beside its data."""
_STATUSES: dict[str, CodeStatus] = {
    "ok": "succeeded",
    "error": "failed",
    "timeout": "timeout",
    "interrupted": "interrupted",
    "lost": "context_lost",
}


class CodeRun:
    """A run, from the request for it on. Whoever carries it out calls `accept`, `take`, and `finish` once.

    `start_soon` starts a task beside it.
    """

    def __init__(
        self,
        run_id: RunId,
        sandbox_id: SandboxId,
        request: RunCode,
        *,
        output_bytes: int,
        start_soon: Callable[[Callable[[], Coroutine[Any, Any, None]]], object],
    ) -> None:
        self.id = run_id
        self.sandbox_id = sandbox_id
        self.request = request
        self.events = EventLog()
        self.execution: CodeExecution | None = None
        """The result, once there is one."""
        self.finished = anyio.Event()
        self.context = ContextId("default")
        self.language: CodeLanguage = "python"
        self.verdict: Verdict | None = None
        self._streams = {name: OutputCollector(name, output_bytes) for name in _STREAMS}
        self._results: list[CodeResult] = []
        self._result_bytes = 0
        self._error: CodeError | None = None
        self._truncated = False
        self._stages: list[Stage] = []
        self._gathered: dict[Literal["stdout", "stderr"], bytearray] = {}
        self._gathering = False
        self._start_soon = start_soon
        self._created = time.time()

    def accept(self, context: ContextId, language: CodeLanguage) -> None:
        """It is known in which context it runs."""
        self.context, self.language = context, language
        self._add(CodeAccepted(offset=len(self.events), id=self.id, context=context))

    def stage(self, name: str, started: float) -> None:
        """A stage that began at `started` of `time.perf_counter` has ended."""
        stage = Stage(name, ms_since(started))
        self._stages.append(stage)
        self._add(CodeStage(offset=len(self.events), name=name, ms=stage.ms))

    async def take(self, event: GuestEvent) -> None:
        """Something that came from the guest."""
        if isinstance(event, CodeResult):
            self._flush()
            self._take_result(event)
        elif isinstance(event, CodeError):
            self._flush()
            self._take_error(event)
        elif len(self.events) < _BRISK_EVENTS:
            self._write(self._streams[event.stream].add(event.data))
        else:
            if not self._gathering:
                self._gathering = True
                self._start_soon(self.gather)
            self._gathered.setdefault(event.stream, bytearray()).extend(event.data)

    async def gather(self) -> None:
        """Pass on gathered output now and then, until the end."""
        while not self.finished.is_set():
            await anyio.sleep(_GATHER_S)
            self._flush()

    def finish(self, status: CodeStatus, *, end: CodeEnd | None = None, failure: ErrorInfo | None = None) -> None:
        """The end; what was printed so far is kept however it came."""
        self._flush()
        for collector in self._streams.values():
            self._write(collector.flush())
        out, err = self._streams["stdout"], self._streams["stderr"]
        self.execution = CodeExecution(
            id=self.id,
            sandbox_id=self.sandbox_id,
            context=self.context,
            language=self.language,
            status=status,
            stdout=out.text(),
            stderr=err.text(),
            results=tuple(self._results),
            error=self._error,
            execution_count=end.execution_count if end else None,
            state_lost=end is not None and end.state_lost,
            truncated=self._truncated or out.truncated or err.truncated or (end is not None and end.truncated),
            failure=failure,
            scan=self.verdict,
            stages=tuple(self._stages),
            usage=end.usage if end else Usage(),
            created_at=rfc3339(self._created),
        )
        self.events.close()
        self.finished.set()

    def finish_as(self, end: CodeEnd) -> None:
        """The end as the guest tells it; `lost` without an error gets one that says why."""
        if end.status == "lost" and self._error is None:
            self._take_error(CodeError(name="ContextLost", value=end.reason or "the context's process ended"))
        self.finish(_STATUSES[end.status], end=end)

    def refuse_syntax(self, message: str) -> None:
        """The code cannot be parsed: an error as its interpreter would give it, and nothing was run."""
        name, _, value = message.partition(": ")
        self._take_error(CodeError(name=name, value=value, traceback=message))
        self.finish("failed")

    async def follow(self, offset: int = 0) -> AsyncIterator[list[bytes]]:
        """Its events from `offset` on as lines of JSON, in batches, until the end."""
        async for batch in self.events.follow(offset):
            yield batch
        if last := self.last_line(offset):
            yield last

    def last_line(self, offset: int = 0) -> list[bytes]:
        """The event that follows all others, if it has ended and that is at `offset` or after."""
        if self.execution is None or offset > len(self.events):
            return []
        return [msgspec.json.encode(CodeFinished(offset=len(self.events), execution=self.execution))]

    @property
    def bytes(self) -> int:
        """About what it takes in memory."""
        return self.events.bytes * 2 + 1024

    def _add(self, event: object) -> None:
        self.events.append(msgspec.json.encode(event))

    def _write(self, output: Output | None) -> None:
        if output is not None:
            offset = len(self.events)
            self._add(CodeOutput(offset=offset, stream=output.stream, text=output.text, base64=output.base64))

    def _flush(self) -> None:
        for name, data in self._gathered.items():
            self._write(self._streams[name].add(bytes(data)))
        self._gathered.clear()

    def _take_result(self, result: CodeResult) -> None:
        self._result_bytes += len(msgspec.json.encode(result)) + _RESULT_BYTES
        if self._result_bytes > RESULT_BYTES + 2 * ITEM_BYTES:  # the guest keeps the limit, if it is as it was made
            self._truncated = True
            return
        self._results.append(result)
        self._add(CodeResultEvent(offset=len(self.events), result=result))

    def _take_error(self, error: CodeError) -> None:
        if self._error is None:
            self._error = error
            self._add(CodeErrorEvent(offset=len(self.events), error=error))


_STREAMS: tuple[Literal["stdout"], Literal["stderr"]] = ("stdout", "stderr")
