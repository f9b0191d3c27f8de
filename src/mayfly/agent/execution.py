"""One program under supervision: its start, its limits, its end and everything it leaves behind."""

from __future__ import annotations

import os
import resource
import time

from mayfly.agent.bare import signal, signal_name
from mayfly.agent.loop import READ
from mayfly.agent.pipes import InputPipe, OutputPipe
from mayfly.agent.process import send_request
from mayfly.agent.requests import RequestError
from mayfly.guest.frames import FrameType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from resource import struct_rusage

    from mayfly.agent.connection import Connection
    from mayfly.agent.loop import Loop, Timer
    from mayfly.agent.process import Child, Program, Rlimits, Settings
    from mayfly.agent.requests import ExecRequest
    from mayfly.guest.frames import Frame

__all__ = ["Execution", "rlimits_for"]

_WATCH_S = 0.05
_SWEEP_S = 0.01
_SWEEP_PATIENCE_S = 2.0
_FAILURE_MAX_BYTES = 2048
_SIGNALS = {"SIGINT": signal.SIGINT, "SIGTERM": signal.SIGTERM, "SIGKILL": signal.SIGKILL}


class Execution:
    """Supervises `child` (a started program, or a runner that waits for it) and reports over `connection`.

    Life: `start` → the control socket ends (STARTED) → the first process is reaped, killed for a limit or not →
    what is left is killed and reaped (the sweep) → the pipes are drained → EXIT.
    """

    def __init__(self, loop: Loop, connection: Connection, request: ExecRequest, child: Child) -> None:
        self._loop = loop
        self._connection = connection
        self._request = request
        self._child = child
        limit = request.output_bytes
        self._outputs = (
            OutputPipe(loop, child.take("stdout"), connection, FrameType.STDOUT, limit_bytes=limit),
            OutputPipe(loop, child.take("stderr"), connection, FrameType.STDERR, limit_bytes=limit),
        )
        self._input = InputPipe(loop, child.take("stdin"), connection.resume_reading)
        self._deadline: Timer | None = None
        self._watcher: Timer | None = None
        self._reason: str | None = None  # set when a limit of ours ends the program
        self._status: int | None = None
        self._usage: struct_rusage | None = None
        self._started_at = time.monotonic()
        self._ended_at = 0.0
        self._sweep_until = 0.0
        self._swept = False
        self._failure = b""
        self._early_signals: list[int] = []
        self._done = False

    # -- start ---------------------------------------------------------------------------------------------

    def start(self, program: Program, mem_bytes: int) -> None:
        """Sets the limits and releases the program. Raises RequestError when it cannot start."""
        child, request = self._child, self._request
        self._loop.on_child(child.pid, self._first_ended)
        child.enclosure.limit(pids=request.pids, mem_bytes=mem_bytes)
        self._started_at = time.monotonic()
        if child.request >= 0:
            try:
                send_request(child, program)
            except OSError as error:
                raise RequestError("start_failed", f"the runner does not take the program: {error}") from None
        self._deadline = self._loop.call_in(request.timeout_s, lambda: self._stop_for("timeout"))
        self._loop.watch(child.control, READ, self._control_ready)
        if request.cpu_s is not None or not child.enclosure.enforces_memory:
            self._watch_usage()
        if not request.stdin:
            self._input.end()

    def _control_ready(self, _: int) -> None:
        try:
            word = os.read(self._child.control, _FAILURE_MAX_BYTES)
        except BlockingIOError:
            return
        except OSError:
            word = b""
        if word:
            self._failure = (self._failure + word)[:_FAILURE_MAX_BYTES]
            return
        self._loop.forget(self._child.control)
        os.close(self._child.take("control"))
        if self._failure:
            self._connection.fail("start_failed", self._failure.decode("utf-8", "replace"))
            return
        self._connection.send(FrameType.STARTED, {"nonce": self._request.nonce, "pid": self._child.pid})
        self.resume_output()
        while self._early_signals and self._status is None:
            self._signal(self._early_signals.pop(0))

    # -- streams and signals -------------------------------------------------------------------------------

    def resume_output(self) -> None:
        """Takes output again after the connection's backlog has gone down."""
        if self._child.control < 0 and not self._done:
            for output in self._outputs:
                output.resume()
            self._finish_if_over()

    @property
    def full(self) -> bool:
        """Whether the connection should not be read for now."""
        return self._input.full

    def frame(self, frame: Frame) -> None:
        """STDIN or SIGNAL. Raises RequestError for anything else."""
        if frame.type == FrameType.STDIN:
            self.stdin_frame(frame.payload)
        elif frame.type == FrameType.SIGNAL:
            self.signal_frame(frame.json().get("signal"))
        else:
            raise RequestError("bad_request", "only STDIN and SIGNAL may follow the program")

    def stdin_frame(self, data: bytes) -> None:
        """A piece of standard input; empty is its end. Raises RequestError when none was announced, or ended."""
        if not self._request.stdin:
            raise RequestError("bad_request", "STDIN: the EXEC frame said that there is none")
        if self._input.ended:
            raise RequestError("bad_request", "STDIN: after its end")
        if data:
            self._input.push(data)
        else:
            self._input.end()

    def signal_frame(self, name: object) -> None:
        """Passes a signal to the program's process group; SIGKILL takes everything. Raises RequestError."""
        number = _SIGNALS.get(name) if isinstance(name, str) else None
        if number is None:
            raise RequestError("bad_request", f"signal: expected one of {', '.join(_SIGNALS)}")
        if self._child.control >= 0 and number != signal.SIGKILL:
            self._early_signals.append(number)  # not for the runner, but for the program it becomes
        elif self._status is None:
            self._signal(number)

    def _signal(self, number: int) -> None:
        if number == signal.SIGKILL:
            self._child.enclosure.kill()
        try:
            os.killpg(self._child.pid, number)
        except (ProcessLookupError, PermissionError):
            pass  # it has ended by itself, or has not made its session yet

    # -- limits --------------------------------------------------------------------------------------------

    def _watch_usage(self) -> None:
        enclosure = self._child.enclosure
        if self._request.cpu_s is not None and enclosure.cpu_us() >= self._request.cpu_s * 1e6:
            self._stop_for("cpu")
        elif enclosure.over_memory():
            self._stop_for("oom")
        else:
            self._watcher = self._loop.call_in(_WATCH_S, self._watch_usage)

    def _stop_for(self, reason: str) -> None:
        if self._reason is None and self._status is None:
            self._reason = reason
            self._cancel_timers()
            self._child.enclosure.kill()
            try:
                os.kill(self._child.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # the enclosure's kill was enough

    def _cancel_timers(self) -> None:
        for timer in (self._deadline, self._watcher):
            if timer is not None:
                timer.cancel()

    # -- end -----------------------------------------------------------------------------------------------

    def _first_ended(self, status: int, usage: struct_rusage) -> None:
        self._ended_at = time.monotonic()
        self._status = status
        self._usage = usage
        self._cancel_timers()
        if self._done:
            return
        self._input.close()
        self._sweep_until = self._ended_at + _SWEEP_PATIENCE_S
        self._child.enclosure.kill()
        self._loop.after_reaping.append(self._sweep)
        self._sweep()

    def _sweep(self) -> None:
        """Waits, without blocking, until nothing of the program lives; then takes the last output."""
        if self._swept or self._done:
            return
        if not self._child.enclosure.empty() and time.monotonic() < self._sweep_until:
            self._loop.call_in(_SWEEP_S, self._sweep)
            return
        self._swept = True
        self._loop.after_reaping.remove(self._sweep)
        self._finish_if_over()

    def _finish_if_over(self) -> None:
        if self._done or not self._swept or self._child.control >= 0:
            return
        for output in self._outputs:
            output.drain()
        if all(output.ended for output in self._outputs) and not self._done:
            self._done = True
            self._connection.send(FrameType.EXIT, self._exit_report())
            self._release()
            self._connection.finish()

    def _exit_report(self) -> dict[str, object]:
        status = self._status or 0
        reason, exit_code, by = self._reason, None, None
        if reason is None and os.WIFSIGNALED(status):
            reason, by = self._reason_of_signal(os.WTERMSIG(status))
        elif reason is None:
            reason, exit_code = "exit", os.WEXITSTATUS(status)
        return {
            "nonce": self._request.nonce,
            "reason": reason,
            "exit_code": exit_code,
            "signal": by,
            "usage": self._usage_report(),
            "truncated": any(output.truncated for output in self._outputs),
        }

    def _reason_of_signal(self, number: int) -> tuple[str, str | None]:
        if number == signal.SIGKILL and self._child.enclosure.ran_out_of_memory():
            return "oom", None
        if number == signal.SIGXCPU and self._request.cpu_s is not None:
            return "cpu", None
        return "signal", signal_name(number)

    def _usage_report(self) -> dict[str, object]:
        enclosure = self._child.enclosure
        cpu_ms, peak_bytes = enclosure.cpu_us() / 1000, enclosure.mem_peak_bytes()
        if self._usage is not None and not enclosure.enforces_memory:
            # A tree that is gone cannot be asked any more; its first process accounts for what it waited for.
            cpu_ms = max(cpu_ms, (self._usage.ru_utime + self._usage.ru_stime) * 1000)
            peak_bytes = max(peak_bytes, self._usage.ru_maxrss * 1024)
        stdout, stderr = self._outputs
        return {
            "wall_ms": round((self._ended_at - self._started_at) * 1000, 3),
            "cpu_ms": round(cpu_ms, 3),
            "mem_peak_bytes": peak_bytes,
            "stdout_bytes": stdout.seen_bytes,
            "stderr_bytes": stderr.seen_bytes,
        }

    def abort(self) -> None:
        """The host has gone, or must not hear more: kills everything. Safe to call at any time."""
        if self._done:
            return
        self._done = True
        self._cancel_timers()
        if self._sweep in self._loop.after_reaping:
            self._loop.after_reaping.remove(self._sweep)
        self._sweep_until = time.monotonic() + _SWEEP_PATIENCE_S
        self._close_pipes()
        self._abort_sweep()

    def _abort_sweep(self) -> None:
        self._child.enclosure.kill()
        if time.monotonic() < self._sweep_until and not self._child.enclosure.empty():
            self._loop.call_in(_SWEEP_S, self._abort_sweep)
        else:
            self._child.enclosure.remove()

    def _close_pipes(self) -> None:
        self._input.close()
        for output in self._outputs:
            output.close()
        self._loop.forget(self._child.control)
        self._child.close()

    def _release(self) -> None:
        self._close_pipes()
        self._child.enclosure.remove()


def rlimits_for(request: ExecRequest, settings: Settings, mem_bytes: int) -> Rlimits:
    """The limits that the program's first process sets for itself, beside the enclosure's or in for it."""
    limits = []
    if request.cpu_s is not None:
        limits.append((resource.RLIMIT_CPU, int(request.cpu_s) + 2))
    if not settings.in_guest:
        limits.append((resource.RLIMIT_AS, 2 * mem_bytes + (1 << 30)))
        uid = os.getuid() if settings.uid is None else settings.uid
        limits.append((resource.RLIMIT_NPROC, _tasks_of(uid) + request.pids))
    return limits


def _tasks_of(uid: int) -> int:
    """How many threads that user has on this machine: RLIMIT_NPROC counts them all."""
    count = 0
    for name in os.listdir("/proc"):
        try:
            if name.isdecimal() and os.stat(f"/proc/{name}").st_uid == uid:
                count += os.stat(f"/proc/{name}/task").st_nlink - 2
        except OSError:
            continue  # gone between two looks
    return count
