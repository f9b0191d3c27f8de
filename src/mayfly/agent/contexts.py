"""Interpreters that keep state between runs: one process each, started, listened to, interrupted and replaced."""

from __future__ import annotations

import os
import time

from mayfly.agent.bare import signal, signal_name
from mayfly.agent.channel import ACK, DONE, ERROR, FAILED, READY, Channel, message
from mayfly.agent.contextpipes import ContextOutput
from mayfly.agent.fields import RequestError
from mayfly.agent.interpreters import init_message, run_message, start_interpreter
from mayfly.agent.sweep import sweep_away
from mayfly.guest.frames import Frame, FrameError, FrameType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from mayfly.agent.coderun import CodeRun
    from mayfly.agent.loop import Timer
    from mayfly.agent.process import Child
    from mayfly.agent.server import Server

__all__ = ["Context"]

_WAITING_MAX = 16
_READY_DEADLINE_S = 80.0
_GRACE_S = 5.0
_INTERRUPT_AGAIN_S = 2.5
_QUICK_DEATH_S = 1.0
_DRAIN_S = 0.05


class Context:
    """One interpreter. States: `starting` → `idle` ⇄ `busy`, and `dead` between a death and the next start."""

    def __init__(self, server: Server, context_id: str, lang: str, *, cwd: str, env: dict[str, str], pids: int) -> None:
        self.id = context_id
        self.lang = lang
        self.cwd = cwd
        self.current: CodeRun | None = None
        self.execution_count = 0
        self.state = "dead"
        self._server = server
        self._loop = server.loop
        self._env = env
        self._pids = pids
        self._child: Child | None = None
        self._channel: Channel | None = None
        self._outputs: tuple[ContextOutput, ...] = ()
        self._waiting: list[CodeRun] = []
        self._on_ready: list[Callable[[str], None]] = []
        self._timers: list[Timer] = []
        self._started_at = 0.0
        self._lost_unsaid = False
        self._why_killed = ""
        self._failure = ""
        self._removed = False

    # -- life ----------------------------------------------------------------------------------------------

    def start(self, on_ready: Callable[[str], None] | None = None) -> None:
        """Starts the process; `on_ready` hears "" or what went wrong. Raises RequestError when it cannot at all."""
        try:
            child = start_interpreter(self._server, self.lang, self.cwd, self._env)
        except OSError as error:
            raise RequestError("start_failed", f"cannot start an interpreter: {error}") from None
        if on_ready is not None:
            self._on_ready.append(on_ready)
        self._child = child
        self.state = "starting"
        self.execution_count = 0
        self._failure = self._why_killed = ""
        self._started_at = time.monotonic()
        self._loop.on_child(child.pid, lambda status, _: self._ended(child, status))
        child.enclosure.limit(pids=self._pids, mem_bytes=self._server.memory_bytes)
        os.close(child.take("stdin"))
        self._outputs = tuple(
            ContextOutput(self, self._loop, stream, child.take(stream)) for stream in ("stdout", "stderr")
        )
        for output in self._outputs:
            output.resume()
        self._channel = Channel(self._loop, child.take("control"), self)
        self._channel.write(init_message(self.lang, self.cwd))
        self._timers = [self._loop.call_in(_READY_DEADLINE_S, lambda: self.kill("it did not get ready in time"))]

    def kill(self, why: str) -> None:
        """Ends the process by force; the rest follows when it is reaped."""
        if self._child is not None:
            self._why_killed = self._why_killed or why
            self._child.enclosure.kill()
            _signal(self._child.pid, signal.SIGKILL, group=False)

    def restart(self, on_ready: Callable[[str], None]) -> None:
        """Ends what runs and starts anew. Raises RequestError."""
        if self._child is None:
            self.start(on_ready)
        else:
            self._on_ready.append(on_ready)
            self.kill("restarted")

    def remove(self) -> None:
        """Ends it for good; runs that wait are told."""
        self._removed = True
        self._drop_waiting("context_not_found", f"the context {self.id} was removed")
        self.kill("removed")

    def _drop_waiting(self, code: str, why: str) -> None:
        waiting, self._waiting = self._waiting, []
        for run in waiting:
            run.fail(code, why)

    def _ended(self, child: Child, status: int) -> None:
        """The process was reaped: the run that it took along is reported, and the next process started."""
        if self._child is not child:
            return
        for output in self._outputs:
            output.drain()
        if self._channel is not None and self.state == "starting":
            self._channel.drain()
        self._stop_timers()
        was_starting, quick = self.state == "starting", time.monotonic() - self._started_at < _QUICK_DEATH_S
        why = self._why_killed or _how_it_ended(child, status)
        asked_for = self._why_killed in {"restarted", "removed"}
        if self.current is not None:
            self._finish(self._report_of_death(status, why))
        elif not was_starting and not asked_for:
            self._lost_unsaid = True
        last_words = " ".join(output.kept_text() for output in self._outputs)
        self._release(child)
        if self._removed:
            self._tell_ready("it was removed before it was ready")
            return
        if was_starting and not asked_for:
            why = self._failure or f"{why} {last_words}".rstrip()
            self._tell_ready(why)
            self._drop_waiting("start_failed", f"the interpreter did not start: {why}")
        elif asked_for or self._waiting or not quick:
            self._start_again()

    def _report_of_death(self, status: int, why: str) -> dict[str, object]:
        run = self.current
        by = run.reason if run is not None else ""
        return {
            "status": by or "lost",
            "execution_count": self.execution_count,
            "state_lost": True,
            "reason": why,
            "exit_code": os.WEXITSTATUS(status) if os.WIFEXITED(status) and not self._why_killed else None,
            "guest_ms": 0.0,
        }

    def _release(self, child: Child) -> None:
        self.state = "dead"
        self._child = None
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        for output in self._outputs:
            output.close()
        child.close()
        sweep_away(self._loop, child.enclosure)

    def _start_again(self) -> None:
        try:
            self.start()
        except RequestError as error:
            self._tell_ready(error.message)
            self._drop_waiting(error.code, error.message)

    def _tell_ready(self, failure: str) -> None:
        waiting, self._on_ready = self._on_ready, []
        for call in waiting:
            call(failure)

    # -- runs ----------------------------------------------------------------------------------------------

    def submit(self, run: CodeRun) -> None:
        """Runs it when its turn comes. Raises RequestError when too many wait."""
        if len(self._waiting) >= _WAITING_MAX:
            raise RequestError("busy", f"{_WAITING_MAX} runs wait for the context {self.id} already")
        self._waiting.append(run)
        if self.state == "dead":
            try:
                self.start()
            except RequestError:
                self._waiting.remove(run)
                raise
        self._next()

    def _next(self) -> None:
        while self.state == "idle" and self._waiting and self._child is not None and self._channel is not None:
            run = self._waiting.pop(0)
            try:
                order = run_message(self.lang, run)
            except RequestError as error:
                run.fail(error.code, error.message)
                continue
            self.state, self.current = "busy", run
            run.begin(self._child.enclosure.cpu_us())
            self._channel.write(order)  # the interpreter works while the host is told
            run.started(self._child.pid)
            for output in self._outputs:
                output.flush()
            if run.timeout_s is not None:
                self._timers.append(self._loop.call_in(run.timeout_s, self._out_of_time))

    def _out_of_time(self) -> None:
        if self.current is not None:
            self._stop(self.current, "timeout")

    def interrupt(self, nonce: str | None) -> bool:
        """SIGINT to the run of that nonce, or to whatever runs. Says whether there was one."""
        for run in self._waiting:
            if run.nonce == nonce:
                self._waiting.remove(run)
                report = {"status": "interrupted", "execution_count": self.execution_count, "guest_ms": 0.0}
                run.end(report, cpu_us=0, mem_peak_bytes=0)
                return True
        current = self.current
        if current is None or self._child is None or nonce not in (None, current.nonce):
            return False
        current.reason = current.reason or "interrupted"
        _signal(self._child.pid, signal.SIGINT, group=True)
        return True

    def abandon(self, run: CodeRun) -> None:
        """Nobody wants it any more."""
        if run in self._waiting:
            self._waiting.remove(run)
        elif run is self.current:
            self._stop(run, "interrupted")
            self.resume()

    def _stop(self, run: CodeRun, reason: str) -> None:
        """Interrupts, and kills when that does not help."""
        if run is not self.current or run.reason == "timeout":
            return
        run.reason = reason
        self.interrupt(run.nonce)
        again = self._loop.call_in(_INTERRUPT_AGAIN_S, lambda: self._interrupt_again(run))
        end = self._loop.call_in(_GRACE_S, lambda: self.kill(f"it did not stop within {_GRACE_S:g} s of SIGINT"))
        self._timers += [again, end]

    def _interrupt_again(self, run: CodeRun) -> None:
        if run is self.current:
            self.interrupt(run.nonce)

    def _finish(self, report: dict[str, object]) -> None:
        run, child = self.current, self._child
        if run is None or child is None:
            return
        self._stop_timers()
        for output in self._outputs:
            output.drain()
        self.current = None
        if self._lost_unsaid:
            report["state_lost"] = True
            self._lost_unsaid = False
        run.end(report, cpu_us=child.enclosure.cpu_us(), mem_peak_bytes=child.enclosure.mem_peak_bytes())

    def _stop_timers(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    # -- flow ----------------------------------------------------------------------------------------------

    @property
    def congested(self) -> bool:
        """Whether the host does not keep up with the run."""
        return self.current is not None and self.current.congested

    def pause(self) -> None:
        """Stops listening until the host has read."""
        for output in self._outputs:
            output.pause()
        if self._channel is not None:
            self._channel.pause()

    def resume(self) -> None:
        """Listens again."""
        for output in self._outputs:
            output.resume()
        if self._channel is not None:
            self._channel.resume()

    # -- what the interpreter says -------------------------------------------------------------------------

    def message(self, kind: bytes, payload: bytes) -> None:
        """READY, FAILED or DONE."""
        if kind == FAILED:
            self._failure = payload.decode("utf-8", "replace")[:1000] or "it failed"
        elif kind == READY and self.state == "starting":
            self._stop_timers()
            for output in self._outputs:
                output.forget()
            self.state = "idle"
            self._tell_ready("")
            self._next()
        elif kind == DONE and self.current is not None:
            try:
                self._done(Frame(FrameType.END, payload).json())
            except FrameError:
                self.kill("it broke its own protocol")

    def _done(self, shape: dict[str, object]) -> None:
        run = self.current
        count, took_ms, code = shape.get("execution_count"), shape.get("guest_ms"), shape.get("exit_code")
        if self.lang == "bash":
            self.execution_count += 1
            shape["status"] = "ok" if code == 0 else "error"
        elif isinstance(count, int) and 0 <= count < 1 << 53:
            self.execution_count = count
        status = "ok" if shape.get("status") == "ok" else "error"
        if status == "error" and run is not None and run.reason:
            status = run.reason
        report = {
            "status": status,
            "execution_count": self.execution_count,
            "state_lost": False,
            "reason": "",
            "exit_code": code if isinstance(code, int) and 0 <= code <= 255 else None,
            "guest_ms": took_ms if isinstance(took_ms, (int, float)) and 0 <= took_ms < 1e9 else 0.0,
            "truncated": shape.get("truncated") is True,
        }
        self._finish(report)
        self.state = "idle"
        self.resume()
        self._next()

    def item(self, kind: bytes, size: int) -> None:
        """A result or an error begins. What was printed before it goes first."""
        if not self.congested:
            for output in self._outputs:
                output.drain()
        if self.lang == "python" and self._channel is not None:
            self._channel.write(message(ACK, b""))  # it waits, so that what it prints after comes after
        if self.current is not None:
            self.current.item("error" if kind == ERROR else "result", size)

    def item_data(self, data: bytes) -> None:
        """A piece of it."""
        if self.current is not None:
            self.current.item_data(data)
            if self.congested:
                self.pause()

    def channel_ended(self) -> None:
        """It closed the channel, or broke its protocol; it cannot be used any more."""
        child = self._child
        if self._channel is not None and self._channel.last_words.startswith(b"cannot start: "):
            self._failure = self._channel.last_words.decode("utf-8", "replace")

        def give_up() -> None:
            if self._child is child:
                self.kill("it closed its channel")

        if child is not None:  # its own end tells more, where it comes at once
            self._timers.append(self._loop.call_in(_DRAIN_S, give_up))


def _how_it_ended(child: Child, status: int) -> str:
    if os.WIFEXITED(status):
        return f"the interpreter ended with exit code {os.WEXITSTATUS(status)}"
    if os.WTERMSIG(status) == signal.SIGKILL and child.enclosure.ran_out_of_memory():
        return "memory ran out"
    return f"the interpreter was ended by {signal_name(os.WTERMSIG(status))}"


def _signal(pid: int, number: int, *, group: bool) -> None:
    try:
        os.killpg(pid, number) if group else os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass  # it has ended by itself, or has not made its session yet
