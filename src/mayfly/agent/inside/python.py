"""The Python interpreter that keeps state: waits for code, runs it in a shell, and tells what came of it."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import time

from mayfly.agent.inside import figures
from mayfly.agent.inside.results import Reporter
from mayfly.agent.inside.wire import DONE, FAILED, INIT, READY, RUN, Wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    class Shell(Protocol):
        """What runs code: IPython's, or the plain one."""

        execution_count: int

        def run(self, code: str) -> bool:
            """Runs it and reports value and error. Whether it ended without one."""


__all__ = ["main"]

_IDLE, _PREPARING, _USER, _REPORTING = range(4)


def main(fd: int) -> None:
    """Serves runs until the agent closes the channel."""
    wire = Wire(fd)
    try:
        interpreter = _Interpreter(wire)
    except BaseException as error:  # noqa: BLE001  told to whoever asked for the context
        wire.send(FAILED, f"{type(error).__name__}: {error}".encode("utf-8", "replace")[:1000])
        os._exit(1)
    wire.send(READY, b"")
    try:
        interpreter.serve()
    except EOFError:
        os._exit(0)


class _Through(io.BufferedWriter):
    """Writes at once, and all of it, also when a signal comes in between."""

    def write(self, data: Any) -> int:
        written = super().write(data)
        self.flush()
        return written


class _Streams:
    """The descriptors 0 to 2 and the `sys` streams over them, put right again before each run."""

    def __init__(self) -> None:
        null = os.open("/dev/null", os.O_RDONLY)
        if null != 0:
            os.dup2(null, 0)
            os.close(null)
        import fcntl

        self._kept = {fd: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 128) for fd in (0, 1, 2)}
        self._ours: dict[str, io.TextIOWrapper] = {}

    def restore(self) -> None:
        """Whatever the program did to them."""
        for fd, kept in self._kept.items():
            if not _same(fd, kept):
                os.dup2(kept, fd)
        for name, fd in (("stdout", 1), ("stderr", 2)):
            stream = self._ours.get(name)
            if stream is None or _closed(stream):
                raw = _Through(io.FileIO(fd, "w", closefd=False))
                stream = io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", write_through=True)
                self._ours[name] = stream
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)
        if sys.stdin is None or _closed(sys.stdin):
            sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115  it stays

    def flush(self) -> None:
        """Writes what is held back."""
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except Exception:  # noqa: BLE001, S110  the program's own stream may do anything
                pass


def _closed(stream: Any) -> bool:
    try:
        return bool(stream.closed)
    except Exception:  # noqa: BLE001  detached, or something else by now
        return True


def _same(fd: int, other: int) -> bool:
    try:
        return os.path.sameopenfile(fd, other)
    except OSError:
        return False


class _Interpreter:
    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._phase = _IDLE
        self._interrupt_comes = False
        wire.on_free = self._free
        self._streams = _Streams()
        self._streams.restore()
        kind, payload = wire.receive()
        if kind != INIT:
            raise ValueError("the first message must be INIT")
        os.chdir(json.loads(payload)["cwd"])
        signal.signal(signal.SIGINT, self._interrupted)
        sys.argv = [""]
        sys.path[0] = ""
        self._reporter = Reporter(wire)
        self._shell = self._make_shell()
        figures.prepare(self._reporter)

    def _make_shell(self) -> Shell:
        import importlib.util

        if importlib.util.find_spec("IPython") is not None:
            from mayfly.agent.inside.notebook import NotebookShell

            return NotebookShell(self._reporter)
        from mayfly.agent.inside.plain import PlainShell

        return PlainShell(self._reporter)

    def _interrupted(self, *_: object) -> None:
        if self._phase == _USER and not self._wire.busy:
            raise KeyboardInterrupt
        if self._phase in (_USER, _PREPARING) or (self._phase == _IDLE and self._wire.waiting):
            self._interrupt_comes = True

    def _free(self) -> None:
        """A message is through: what came meanwhile may interrupt now."""
        if self._interrupt_comes and self._phase == _USER:
            self._interrupt_comes = False
            raise KeyboardInterrupt

    def serve(self) -> None:
        """Runs what comes. Raises EOFError at the end."""
        while True:
            kind, payload = self._wire.receive()
            if kind == RUN:
                self._phase = _PREPARING
                report = self._run(json.loads(payload))
                if self._wire.is_copy:
                    os._exit(0)  # the code has forked, and the fork has come to its end too
                self._phase = _IDLE
                self._interrupt_comes = False
                self._wire.send(DONE, json.dumps(report).encode())

    def _run(self, order: dict[str, Any]) -> dict[str, object]:
        self._streams.restore()
        signal.signal(signal.SIGINT, self._interrupted)
        self._reporter.begin(order)
        before = {name: os.environ.get(name) for name in order["env"]}
        os.environ.update(order["env"])
        started = time.perf_counter()
        ok = False
        try:
            ok = self._in_user_phase(order["code"])
        except BaseException as error:  # noqa: BLE001  whatever comes out of a shell is the program's
            self._phase = _REPORTING
            self._reporter.exception(error)
        self._phase = _REPORTING
        took_ms = (time.perf_counter() - started) * 1000
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        self._streams.flush()
        self._reporter.end()
        return {
            "status": "ok" if ok and not self._reporter.failed else "error",
            "execution_count": self._shell.execution_count,
            "guest_ms": round(took_ms, 3),
            "truncated": self._reporter.truncated,
        }

    def _in_user_phase(self, code: str) -> bool:
        self._phase = _USER
        self._free()
        ok = self._shell.run(code)
        figures.show_all()
        self._phase = _REPORTING
        return ok
