"""Answers that are streams of lines: sent as they come, with a sign of life in silence, ended with the client."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import anyio
import structlog

from mayfly.errors import MayflyError
from mayfly.host.tasks import single_error

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator

    from anyio.abc import TaskGroup
    from starlette.types import Receive, Scope, Send

__all__ = ["LineStream", "until_disconnect"]

_log = structlog.get_logger(__name__)

_STALL_S = 300.0
_SILENCE_S = 15.0
_SLICE_BYTES = 256 * 1024
_HEAD: dict[str, object] = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"application/x-ndjson"), (b"cache-control", b"no-store")],
}
_BRIEF_S = 0.02
"""What is done sooner nobody watches: a task for that would cost as much as all else of the answer."""


class LineStream:
    """ASGI response whose lines `produce` gives to the function that it is called with.

    The status is sent with the first line, so that a failure before it is an ordinary error answer; a failure after
    it cuts the connection. An empty line is sent after 15 s of silence. `produce` is cancelled when the client goes
    away, or takes nothing for five minutes. Lines that it returns go with the end, in one piece.
    """

    def __init__(self, produce: Callable[[Callable[[bytes], Awaitable[None]]], Awaitable[bytes | None]]) -> None:
        self._produce = produce
        self._lock = anyio.Lock(fast_acquire=True)
        self._started = False
        self._said = 0.0
        self._ended = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; MayflyError when `produce` failed before anything was sent."""
        del scope
        try:
            await until_disconnect(receive, lambda: self._send_all(send))
        except MayflyError as error:
            if not self._started:
                raise
            _log.warning("stream failed", code=error.code, error=str(error))
        except TimeoutError:
            _log.warning("client takes nothing, dropped")

    async def _send_all(self, send: Send) -> None:
        async def write(data: bytes) -> None:
            async with self._lock:
                await self._write(send, data)

        with single_error():
            async with anyio.create_task_group() as tasks:
                with _later(tasks, _SILENCE_S, self._beat, write):
                    last = await self._produce(write)
                    async with self._lock:
                        await self._write(send, last or b"", end=True)

    async def _beat(self, write: Callable[[bytes], Awaitable[None]]) -> None:
        while True:
            left_s = self._said + _SILENCE_S - anyio.current_time() if self._started else _SILENCE_S
            if left_s > 0:
                await anyio.sleep(left_s)
            elif self._started:
                await write(b"\n")

    async def _write(self, send: Send, data: bytes, *, end: bool = False) -> None:
        if self._ended:
            return
        self._ended = end
        view = memoryview(data)
        for start in range(0, max(len(view), end), _SLICE_BYTES):
            part = bytes(view[start : start + _SLICE_BYTES])
            more = not end or start + _SLICE_BYTES < len(view)
            head = [] if self._started else [_HEAD]
            self._started = True
            await _timely(send, *head, {"type": "http.response.body", "body": part, "more_body": more})
        self._said = anyio.current_time()


async def until_disconnect(receive: Receive, work: Callable[[], Awaitable[None]], *, at_once: bool = False) -> bool:
    """Do `work`, cancelled when the client goes away; whether it was done. Its first failure is raised alone.

    What takes less than 20 ms is done in any case, unless the client is to be watched `at_once`.
    """
    done = False

    async def watch(scope: anyio.CancelScope) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        scope.cancel()

    with single_error():
        async with anyio.create_task_group() as tasks:
            with _later(tasks, 0 if at_once else _BRIEF_S, watch, tasks.cancel_scope):
                await work()
                done = True
    return done


@contextlib.contextmanager
def _later(
    tasks: TaskGroup, wait_s: float, task: Callable[..., Coroutine[Any, Any, None]], *args: object
) -> Iterator[None]:
    """Start the task if the block lasts so long; where it did not fail, the group is cancelled after the block."""
    begun = False

    def begin() -> None:
        nonlocal begun
        begun = True
        tasks.start_soon(task, *args)

    timer = asyncio.get_running_loop().call_later(wait_s, begin)
    try:
        yield
    finally:
        timer.cancel()
    if begun:
        tasks.cancel_scope.cancel()


async def _timely(send: Send, *messages: dict[str, object]) -> None:
    with anyio.fail_after(_STALL_S):
        for message in messages:
            await send(message)
