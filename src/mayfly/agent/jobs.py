"""Processes of a sandbox: started by name, followed by connections, kept when those end."""

from __future__ import annotations

import os
import time

from mayfly.agent import process
from mayfly.agent.bare import signal, signal_name
from mayfly.agent.enclosure import CgroupEnclosure
from mayfly.agent.fields import RequestError
from mayfly.agent.joblog import JobLog
from mayfly.agent.loop import READ
from mayfly.agent.pipes import InputPipe
from mayfly.agent.sweep import sweep_away
from mayfly.guest.frames import PAYLOAD_MAX_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from resource import struct_rusage

    from mayfly.agent.jobcalls import Follower, JobRequest
    from mayfly.agent.loop import Timer
    from mayfly.agent.process import Enclosure
    from mayfly.agent.server import Server

__all__ = ["Job", "Jobs"]

_JOBS_MAX = 128
_ENDED_MAX = 32
_FAILURE_MAX_BYTES = 2048
_KEPT_LEAST_BYTES = 64 * 1024
_LAST_OUTPUT_S = 0.2
"""A process that has ended may have left children that hold its pipes: so long their output is waited for."""
_SIGNALS = {
    name: getattr(signal, name)
    for name in ("SIGHUP", "SIGINT", "SIGQUIT", "SIGKILL", "SIGUSR1", "SIGUSR2", "SIGTERM", "SIGCONT", "SIGSTOP")
}


class Job:
    """One process. Life: started → its pipes are read → it is reaped, and its pipes end or are given up → over."""

    def __init__(self, server: Server, request: JobRequest, on_over: Callable[[Job], None]) -> None:
        self._server = server
        self._loop = server.loop
        self.request = request
        self.log = JobLog(min(request.buffer_bytes, max(server.memory_bytes // 1024, _KEPT_LEAST_BYTES)))
        self.followers: list[Follower] = []
        self.on_room: list[Callable[[], None]] = []
        """Called when it takes input again."""
        self.started_at = time.time()
        self.running = False
        """From when it is known to have started until its end is known."""
        self.end: dict[str, object] | None = None
        self._on_over = on_over
        self._started = time.monotonic()
        self._reason: str | None = None
        self._failure = b""
        self._timers: list[Timer] = []
        self._status: int | None = None
        self._usage: struct_rusage | None = None
        env = process.base_environment(server.settings) | request.env
        if request.pty is not None:
            env.setdefault("TERM", "xterm-256color")
        child = server.spawn(
            lambda enclosure: process.spawn_command(
                server.settings, enclosure, request.argv, env=env, cwd=request.cwd, pty=request.pty
            )
        )
        self._child = child
        self.pid = child.pid
        self._loop.on_child(child.pid, self._ended)
        child.enclosure.limit(pids=request.pids, mem_bytes=server.memory_bytes)
        self._terminal = os.dup(child.stdin) if request.pty is not None else -1
        self._input = InputPipe(self._loop, child.take("stdin"), self._room)
        self._outputs = {child.take("stdout"): "stdout"}
        if child.stderr >= 0:
            self._outputs[child.take("stderr")] = "stderr"
        self._loop.watch(child.control, READ, self._control_ready)
        if request.timeout_s is not None:
            self._timers.append(self._loop.call_in(request.timeout_s, lambda: self.kill("timeout")))
        if request.pty is None and not request.stdin:
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
        if not self._failure:
            self.running = True
        for follower in list(self.followers):
            if self._failure:
                follower.refuse("start_failed", self._failure.decode("utf-8", "replace"))
            else:
                follower.begin()
        self.listen()
        self._finish_if_over()

    # -- output --------------------------------------------------------------------------------------------

    def listen(self) -> None:
        """Reads its output, unless somebody who follows does not keep up."""
        if self._child.control >= 0:
            return
        slow = any(follower.behind for follower in self.followers)
        for fd in self._outputs:
            if slow:
                self._loop.forget(fd)
            else:
                self._loop.watch(fd, READ, self._reader(fd))

    def _reader(self, fd: int) -> Callable[[int], None]:
        def ready(_: int) -> None:
            self._read(fd)

        return ready

    def _read(self, fd: int) -> bool:
        try:
            data = os.read(fd, PAYLOAD_MAX_BYTES)
        except BlockingIOError:
            return False
        except OSError:  # a terminal whose programs have all gone says EIO
            data = b""
        if not data:
            self._close_output(fd)
            self._finish_if_over()
            return False
        self.log.add(self._outputs[fd], data)
        for follower in list(self.followers):
            follower.push()
        self.log.forget(min((follower.offset for follower in self.followers), default=self.log.end))
        if any(follower.behind for follower in self.followers):
            self.listen()
        return True

    def _close_output(self, fd: int) -> None:
        self._loop.forget(fd)
        os.close(fd)
        del self._outputs[fd]

    # -- input ---------------------------------------------------------------------------------------------

    @property
    def full(self) -> bool:
        """Whether it does not take its input for now."""
        return self._input.full

    def _room(self) -> None:
        for follower in self.followers:
            follower.room()
        for call in self.on_room:
            call()

    def write(self, data: bytes) -> None:
        """Input; empty is its end. Raises RequestError where it has none."""
        if self.request.pty is not None:
            self._input.push(data or b"\x04")
        elif self._input.ended and self.running:
            raise RequestError("bad_request", "STDIN: it has no input, or that has been ended")
        elif data:
            self._input.push(data)
        else:
            self._input.end()

    def resize(self, cols: int, rows: int) -> None:
        """The new size of its terminal. Raises RequestError where it has none."""
        if self._terminal < 0:
            raise RequestError("bad_request", "it has no terminal, or has ended")
        process.set_terminal_size(self._terminal, cols, rows)

    def signal(self, name: object) -> None:
        """To its process group; SIGKILL to everything it started. Raises RequestError for an unknown one."""
        number = _SIGNALS.get(name) if isinstance(name, str) else None
        if number is None:
            raise RequestError("bad_request", f"signal: expected one of {', '.join(_SIGNALS)}")
        if number == signal.SIGKILL:
            self._child.enclosure.kill()
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):
            pass  # nothing of it is left, or it has no session yet

    # -- end -----------------------------------------------------------------------------------------------

    def kill(self, reason: str | None = None) -> None:
        """Ends it and all that it started."""
        if self._status is None:
            self._reason = self._reason or reason
            self.signal("SIGKILL")

    def _ended(self, status: int, usage: struct_rusage) -> None:
        self._status, self._usage = status, usage
        for timer in self._timers:
            timer.cancel()
        self._timers = [self._loop.call_in(_LAST_OUTPUT_S, self._give_up_output)]
        self._input.close()
        self._finish_if_over()

    def _give_up_output(self) -> None:
        """What holds the pipes now is something that it left behind; it writes into nothing from now on."""
        for fd in list(self._outputs):
            for _ in range(16):
                if fd not in self._outputs or not self._read(fd):
                    break
            if fd in self._outputs:
                self._close_output(fd)
        self._finish_if_over()

    def _finish_if_over(self) -> None:
        if self.end is not None or self._status is None or self._outputs or self._child.control >= 0:
            return
        self.end = self._report(self._status)
        self.running = False
        for timer in self._timers:
            timer.cancel()
        if self._terminal >= 0:
            os.close(self._terminal)
            self._terminal = -1
        for follower in list(self.followers):
            follower.push()
        self._child.close()
        if not self.request.keep or self._failure:
            sweep_away(self._loop, self._child.enclosure)
        else:
            self._server.jobs.linger(self._child.enclosure)
        self._on_over(self)

    def _report(self, status: int) -> dict[str, object]:
        reason, code, by = self._reason, None, None
        if reason is None and os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            is_oom = number == signal.SIGKILL and self._child.enclosure.ran_out_of_memory()
            reason, by = ("oom", None) if is_oom else ("signal", signal_name(number))
        elif reason is None:
            reason, code = "exit", os.WEXITSTATUS(status)
        usage = self._usage
        own_us = 0.0 if usage is None else (usage.ru_utime + usage.ru_stime) * 1e6
        own_bytes = 0 if usage is None else usage.ru_maxrss * 1024
        return {
            "reason": reason,
            "exit_code": code,
            "signal": by,
            "usage": {
                "wall_ms": round((time.monotonic() - self._started) * 1000, 3),
                "cpu_ms": round(max(own_us, self._child.enclosure.cpu_us()) / 1000, 3),
                "mem_peak_bytes": max(own_bytes, self._child.enclosure.mem_peak_bytes()),
            },
        }

    def shape(self) -> dict[str, object]:
        """As it is told to the host."""
        request = self.request
        return {
            "pid": self.pid,
            "command": request.command[:2000],
            "cwd": request.cwd,
            "running": self.end is None,
            "pty": request.pty is not None,
            "keep": request.keep,
            "started_at": self.started_at,
            "output_bytes": self.log.end,
            "end": self.end,
        }


class Jobs:
    """All processes by their ids: those that run, and kept ones that ended not long ago."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._by_pid: dict[int, Job] = {}
        self._lingering: list[CgroupEnclosure] = []
        server.loop.after_reaping.append(self._tidy)

    def all(self) -> list[Job]:
        """The oldest first."""
        return list(self._by_pid.values())

    def get(self, pid: int) -> Job:
        """Raises RequestError where there is none."""
        try:
            return self._by_pid[pid]
        except KeyError:
            raise RequestError("process_not_found", f"there is no process {pid}") from None

    def start(self, request: JobRequest) -> Job:
        """Raises RequestError when it cannot be started, or too many run."""
        if sum(job.end is None for job in self._by_pid.values()) >= _JOBS_MAX:
            raise RequestError("busy", f"{_JOBS_MAX} processes run already")
        try:
            job = Job(self._server, request, self._over)
        except OSError as error:
            raise RequestError("start_failed", f"cannot start a process: {error}") from None
        self._by_pid.pop(job.pid, None)
        self._by_pid[job.pid] = job
        return job

    def _over(self, job: Job) -> None:
        if not job.request.keep:
            self._by_pid.pop(job.pid, None)
        ended = [each for each in self._by_pid.values() if each.end is not None]
        for each in ended[: max(len(ended) - _ENDED_MAX, 0)]:
            self._by_pid.pop(each.pid, None)

    def linger(self, enclosure: Enclosure) -> None:
        """What a kept process left running goes on; its enclosure is removed when that has ended."""
        if isinstance(enclosure, CgroupEnclosure):
            self._lingering.append(enclosure)
            self._tidy()
        else:
            enclosure.remove()

    def _tidy(self) -> None:
        for enclosure in list(self._lingering):
            if enclosure.empty():
                self._lingering.remove(enclosure)
                enclosure.remove()
