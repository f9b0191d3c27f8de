"""The agent's event loop: readiness of descriptors, timers, and the reaping of every child.

One thread, `epoll`, no third-party code and no `asyncio`, whose import alone costs more than all of this on the
emulated CPU the agent may start on.
"""

from __future__ import annotations

import os
import select
import sys
import time

from mayfly.agent.bare import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from resource import struct_rusage

__all__ = ["READ", "WRITE", "Loop", "Timer", "log"]

READ = select.EPOLLIN | select.EPOLLRDHUP
WRITE = select.EPOLLOUT
_IDLE_S = 3600.0  # nothing is due: an idle clone must not wake up and touch its memory


def log(message: str) -> None:
    """One line to the console, where the host may read it; never raises."""
    try:
        os.write(2, f"mayfly-agent: {message[:500]}\n".encode(errors="replace"))
    except OSError:
        pass  # nobody listens; nothing depends on it


class Timer:
    """A call due at `when` (monotonic seconds); `cancel` forgets it."""

    __slots__ = ("call", "when")

    def __init__(self, when: float, call: Callable[[], None]) -> None:
        self.when = when
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        """Never calls, from now on."""
        self.call = None


class Loop:
    """Dispatches readiness, due timers and ended children until `stop` is called."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._timers: list[Timer] = []
        self._running = True
        self._child_ended: dict[int, Callable[[int, struct_rusage], None]] = {}
        self.after_reaping: list[Callable[[], None]] = []
        """Called after every round in which a child was reaped."""
        self._catch_children()

    def _catch_children(self) -> None:
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

        def woken(_: int) -> None:
            os.read(wake_read, 4096)
            self._reap()

        self.watch(wake_read, READ, woken)

    def watch(self, fd: int, events: int, handler: Callable[[int], None]) -> None:
        """Calls `handler` with the ready events of `fd`; replaces an earlier watch of it."""
        if fd in self._handlers:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._handlers[fd] = handler

    def forget(self, fd: int) -> None:
        """Stops watching `fd`; to be called before it is closed. Not watched at all is fine too."""
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def call_in(self, delay_s: float, call: Callable[[], None]) -> Timer:
        """Calls once, `delay_s` from now."""
        timer = Timer(time.monotonic() + delay_s, call)
        self._timers.append(timer)
        return timer

    def on_child(self, pid: int, ended: Callable[[int, struct_rusage], None]) -> None:
        """Calls `ended(wait status, usage)` when the child is reaped."""
        self._child_ended[pid] = ended

    def stop(self) -> None:
        """Ends `run` after the present round."""
        self._running = False

    def run(self) -> None:
        """Runs until `stop`. What a handler raises is logged and costs nobody else anything."""
        while self._running:
            for fd, events in self._epoll.poll(self._next_timeout()):
                handler = self._handlers.get(fd)
                if handler is not None:
                    self._guard(handler, events)
            self._run_timers()

    def _next_timeout(self) -> float:
        due = min((timer.when for timer in self._timers), default=float("inf"))
        return max(0.0, min(due - time.monotonic(), _IDLE_S))

    def _run_timers(self) -> None:
        now = time.monotonic()
        due = [timer for timer in self._timers if timer.when <= now]
        self._timers = [timer for timer in self._timers if timer.when > now and timer.call is not None]
        for timer in due:
            if timer.call is not None:
                self._guard(timer.call)
        self._reap()

    def _reap(self) -> None:
        reaped = False
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            reaped = True
            ended = self._child_ended.pop(pid, None)
            if ended is not None:
                self._guard(ended, status, usage)
        if reaped:
            for call in list(self.after_reaping):
                self._guard(call)

    @staticmethod
    def _guard(call: Callable[..., None], *args: object) -> None:
        try:
            call(*args)
        except Exception as error:  # noqa: BLE001  the agent must outlive any single operation
            where = sys.exc_info()[2]
            while where is not None and where.tb_next is not None:
                where = where.tb_next
            line = f"{where.tb_frame.f_code.co_filename}:{where.tb_lineno}" if where is not None else "?"
            log(f"{type(error).__name__} at {line}: {error}")
