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
        self._sends = False
        """Since `_said`, and the client has not taken all of it."""
        self._ended = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; MayflyError when `produce` failed before anything was sent."""
        del scope
        try:
            await _until_disconnect(receive, lambda tasks: self._send_all(send, tasks), watch_after_s=_BRIEF_S)
        except MayflyError as error:
            if not self._started:
                raise
            _log.warning("stream failed", code=error.code, error=str(error))
        except TimeoutError:
            _log.warning("client takes nothing, dropped")

    async def _send_all(self, send: Send, tasks: TaskGroup) -> None:
        async def write(data: bytes) -> None:
            async with self._lock:
                await self._write(send, data)

        with _later(tasks, min(_SILENCE_S, _STALL_S), self._tend, write):
            last = await self._produce(write)
            async with self._lock:
                await self._write(send, last or b"", end=True)

    async def _tend(self, write: Callable[[bytes], Awaitable[None]]) -> None:
        """Breaks silences; TimeoutError when the client takes nothing. Started late: a short stream does without."""
        while True:
            patience_s = _STALL_S if self._sends else _SILENCE_S
            left_s = self._said + patience_s - anyio.current_time() if self._started else patience_s
            if left_s > 0:
                await anyio.sleep(min(left_s, _SILENCE_S))
            elif self._sends:
                raise TimeoutError
            elif self._started:
                with anyio.fail_after(_STALL_S):
                    await write(b"\n")

    async def _write(self, send: Send, data: bytes, *, end: bool = False) -> None:
        if self._ended:
            return
        self._ended = end
        view = memoryview(data)
        for start in range(0, max(len(view), end), _SLICE_BYTES):
            part = bytes(view[start : start + _SLICE_BYTES])
            more = not end or start + _SLICE_BYTES < len(view)
            self._said, self._sends = anyio.current_time(), True
            if not self._started:
                self._started = True
                await send(_HEAD)
            await send({"type": "http.response.body", "body": part, "more_body": more})
            self._said, self._sends = anyio.current_time(), False


async def until_disconnect(receive: Receive, work: Callable[[], Awaitable[None]], *, at_once: bool = False) -> bool:
    """Do `work`, cancelled when the client goes away; whether it was done. Its first failure is raised alone.

    What takes less than 20 ms is done in any case, unless the client is to be watched `at_once`.
    """
    return await _until_disconnect(receive, lambda _: work(), watch_after_s=0 if at_once else _BRIEF_S)


async def _until_disconnect(
    receive: Receive, work: Callable[[TaskGroup], Awaitable[None]], *, watch_after_s: float
) -> bool:
    """`until_disconnect` for work that has tasks beside it, in a group that ends with it."""
    done = False

    async def watch(scope: anyio.CancelScope) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        scope.cancel()

    with single_error():
        async with anyio.create_task_group() as tasks:
            with _later(tasks, watch_after_s, watch, tasks.cancel_scope):
                await work(tasks)
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
