"""The interpreters that wait for a program: a plain one, and one that has imported what programs import most."""

from __future__ import annotations

import os
import sys

from mayfly.agent import process
from mayfly.agent.bare import signal
from mayfly.agent.loop import READ, log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mayfly.agent.loop import Loop
    from mayfly.agent.process import Child, Enclosure, Settings

__all__ = ["Runners"]

_PRELOAD_MIN_BYTES = 160 << 20  # of memory: with less, what is preloaded would be missed by the program
_REPORT_BYTES = 2048
_PLAIN_READY_S = 0.25


class Runners:
    """A plain runner, and one that has preloaded; each waits for a program that suits it.

    `spawn` starts a process in an enclosure of its own; `machine_bytes` is the memory there is: with little nothing is
    preloaded.
    """

    def __init__(
        self, loop: Loop, settings: Settings, spawn: Callable[[Callable[[Enclosure], Child]], Child], machine_bytes: int
    ) -> None:
        self._loop = loop
        self._settings = settings
        self._spawn = spawn
        self._preloads = bool(settings.preload) and machine_bytes >= _PRELOAD_MIN_BYTES
        tops = {name.partition(".")[0] for name in settings.preload}
        # what is worth it: the end of an interpreter that has preloaded costs more than most of the standard library
        self._words = [name.encode() for name in tops - sys.stdlib_module_names or tops]
        self._waiting: Child | None = None
        self._preloading: Child | None = None
        self._preloaded: Child | None = None
        self._ready: Callable[[], None] = lambda: None
        self._a_program_came = False

    def get_ready(self, ready: Callable[[], None] = lambda: None) -> None:
        """Starts both that wait, unless a program has come already: they would be in its way. Raises OSError.

        `ready` is called once all that will wait waits.
        """
        if not self._a_program_came:
            self.warm_up()
            self.preload(ready)

    def take(self, source: bytes) -> Child:
        """The runner that suits the program, or a new one; it is the caller's now. Raises OSError.

        A program that does not name what is preloaded gets the plain one. The other goes on waiting, and is the first
        to be killed where memory runs out.
        """
        self.stop_preloading()
        for child in (self._waiting, self._preloaded):
            if child is not None and child.dead:
                self._died(child)
        child = self._preloaded
        if child is not None and any(word in source for word in self._words):
            self._preloaded = None
            self._expendable(child, "0")
            return child
        child = self._waiting or self._start()
        self._waiting = None
        return child

    def stop_preloading(self) -> None:
        """Ends the runner that is getting ready: a program has come, and it would be in the way."""
        self._a_program_came = True
        if self._preloading is not None:
            child, self._preloading = self._preloading, None
            self._loop.on_child(child.pid, lambda *_: child.enclosure.remove())
            self._loop.forget(child.control)
            child.close()
            child.enclosure.kill()
            try:
                os.kill(child.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # the enclosure's kill was enough

    def warm_up(self) -> None:
        """Starts a plain runner if none waits. Raises OSError."""
        if self._waiting is None:
            self._waiting = self._start()

    @property
    def waiting_pid(self) -> int | None:
        """The plain runner that waits, if there is one."""
        return None if self._waiting is None else self._waiting.pid

    def preload(self, ready: Callable[[], None]) -> None:
        """Starts a runner that imports what programs import most; `ready` is called once all that will wait waits.

        Only where the image has a list and there is memory for it. A program that comes before gets the plain one,
        and `ready` is not called.
        """
        if not self._preloads:
            self._loop.call_in(_PLAIN_READY_S, lambda: ready() if self._waiting is not None else None)
            return
        try:
            child = self._start(self._settings.preload)
        except OSError as error:
            log(f"nothing is preloaded: {error}")
            return
        self._preloading, self._ready = child, ready
        self._loop.watch(child.control, READ, lambda _: self._reported(child))

    def _reported(self, child: Child) -> None:
        try:
            report = os.read(child.control, _REPORT_BYTES).decode("utf-8", "replace").strip()
        except OSError as error:
            report = str(error)
        self._loop.forget(child.control)
        if report != "ready":
            log(f"preloading: {report or 'the interpreter ended'}")
        if report.startswith("ready"):  # else it is ending by itself
            self._preloading, self._preloaded = None, child
            self._expendable(child, "1000")
            self._loop.call_in(0, self._ready)

    def _expendable(self, child: Child, score: str) -> None:
        """Whether the kernel takes it first when memory is short; in the guest only."""
        if self._settings.in_guest:
            try:
                with open(f"/proc/{child.pid}/oom_score_adj", "wb", buffering=0) as file:
                    file.write(score.encode())
            except OSError as error:
                log(f"a runner's standing: {error}")

    def _start(self, preload: Sequence[str] = ()) -> Child:
        child = self._spawn(lambda enclosure: process.spawn_runner(self._settings, enclosure, preload=preload))
        self._loop.on_child(child.pid, lambda *_: self._died(child))
        return child

    def _died(self, which: Child) -> None:
        if which is self._waiting:
            self._waiting = None
        elif which is self._preloaded:
            self._preloaded = None
        elif which is self._preloading:
            self._preloading = None
            self._loop.forget(which.control)
        else:
            return
        which.close()
        which.enclosure.remove()
        log("a waiting runner died")
