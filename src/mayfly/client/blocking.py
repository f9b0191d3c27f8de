"""The blocking face of asynchronous work: one event loop in a thread of its own, shared by the whole process.

Callbacks run in the thread that waits, one at a time, while the loop waits for them: they may print, raise, and call
the same sandbox again.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import queue
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import anyio.to_thread

from mayfly.host.eventloop import open_portal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
    from contextlib import AbstractAsyncContextManager

    from anyio.from_thread import BlockingPortal

__all__ = ["Callbacks", "call", "in_shared_loop", "iterate", "shared_portal"]

T = TypeVar("T")

_LOCK = threading.Lock()
_PORTALS: dict[int, BlockingPortal] = {}
"""By process id: a forked child has no thread to wait for, and starts its own."""
_THREADS: set[tuple[int, int]] = set()
"""The loops' process and thread ids."""
_OPEN: set[contextlib.AsyncExitStack] = set()
"""Streams that are being iterated."""
_LATE: set[asyncio.Task[None]] = set()
"""Clean-up that nobody waits for."""


def shared_portal() -> BlockingPortal:
    """The process's event loop, started when it is first asked for and ended with the process."""
    with _LOCK:
        pid = os.getpid()
        if pid not in _PORTALS:
            stack = contextlib.ExitStack()
            _PORTALS[pid] = stack.enter_context(open_portal("mayfly"))
            _THREADS.add((pid, _PORTALS[pid].call(threading.get_ident)))
            atexit.register(_stop, pid, stack)
        return _PORTALS[pid]


def _stop(pid: int, stack: contextlib.ExitStack) -> None:
    portal = _PORTALS.pop(pid, None)
    if pid == os.getpid() and portal is not None:
        # What still waits is cancelled: an open stream that nobody reads must not keep the process.
        for opened in list(_OPEN):
            with contextlib.suppress(Exception):
                portal.call(opened.aclose)
        with contextlib.suppress(RuntimeError):
            portal.call(portal.stop, True)
        stack.close()


def call(work: Callable[[], Awaitable[T]]) -> T:
    """Wait for `work` in the shared loop; Ctrl-C and other exceptions here cancel it there, and its end is awaited."""
    future = shared_portal().start_task_soon(work)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


def _settle(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)


def _in_loop() -> bool:
    return (os.getpid(), threading.get_ident()) in _THREADS


async def in_shared_loop(work: Callable[[], Awaitable[T]]) -> T:
    """Await `work` in the shared loop, from whichever loop: also from the shared one itself."""
    if _in_loop():
        return await work()
    future = shared_portal().start_task_soon(work)
    try:
        return await anyio.to_thread.run_sync(future.result, abandon_on_cancel=True)
    except BaseException:
        future.cancel()
        raise


class Callbacks:
    """Takes calls from the loop to the thread that waits in `run`. One is made for each piece of work."""

    def __init__(self) -> None:
        self._pending: queue.SimpleQueue[tuple[Callable[[], object], Callable[[], object]] | None] = queue.SimpleQueue()

    def here(self, callback: Callable[[T], object] | None) -> Callable[[T], Awaitable[None]] | None:
        """`callback` as a coroutine function that is done when the waiting thread has called it; None stays None."""
        if callback is None:
            return None

        async def relay(value: T) -> None:
            loop = asyncio.get_running_loop()
            done = loop.create_future()

            def finish() -> None:
                loop.call_soon_threadsafe(_settle, done)

            self._pending.put((lambda: callback(value), finish))
            await done

        return relay

    def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """As `call`, with the callbacks called in this thread; what one raises cancels the work and is raised."""
        future = shared_portal().start_task_soon(work)
        future.add_done_callback(lambda _: self._pending.put(None))
        try:
            while (item := self._pending.get()) is not None:
                callback, finish = item
                callback()
                finish()
            return future.result()
        except BaseException:
            future.cancel()
            raise


def iterate(open_stream: Callable[[], AbstractAsyncContextManager[AsyncIterator[T]]]) -> Iterator[T]:
    """The values of an asynchronous stream, which is opened at the first and closed after the last one that is taken.

    Leaving the iteration early closes it too, when the generator is closed or collected.
    """
    # No cancel scope of these streams is open between two values, so each step may be a task of its own.
    stack = contextlib.AsyncExitStack()
    values = call(partial(stack.enter_async_context, open_stream()))
    _OPEN.add(stack)
    ended: Any = object()

    async def advance() -> Any:
        return await anext(values, ended)

    try:
        while (value := call(advance)) is not ended:
            yield value
    finally:
        _OPEN.discard(stack)
        _finish(stack.aclose)


def _finish(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Wait for clean-up; where an iteration is collected late, in the loop's own thread or after its end, do not."""
    if _in_loop():
        _LATE.add(task := asyncio.get_running_loop().create_task(work()))
        task.add_done_callback(_LATE.discard)
    elif os.getpid() in _PORTALS:
        call(work)
