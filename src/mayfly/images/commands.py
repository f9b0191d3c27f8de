"""Starts the tools that make images: bounded output, a deadline, and no process left behind."""

from __future__ import annotations

import os
import selectors
import shutil
import signal
import subprocess
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from mayfly.errors import DiskFullError, DownloadError, SetupError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

__all__ = ["read_tool", "run_tool", "tool_path"]

_GUARD = """
trap 'trap "" TERM; kill -TERM 0; wait; exit 143' TERM
exec 3<&0
"$@" <&3 3<&- &
exec 3<&- </dev/null
wait $!
"""
_UNFETCHED = "E: Failed to fetch "  # apt's words
_WHAT_MAX = 300
_TAIL_LINES = 200
_ERROR_LINES = 12
_LINE_MAX = 4096
_TERMINATE_GRACE_S = 10.0


def tool_path() -> str:
    """PATH with the administrator's directories, which plain users often lack and some tools lie in."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


def run_tool(
    argv: Sequence[str],
    *,
    timeout_s: float,
    on_line: Callable[[str], None] | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: IO[bytes] | None = None,
    stdout: IO[bytes] | None = None,
    name: str | None = None,
) -> str:
    """Run a tool to its end and return the last lines it printed (of standard error only when `stdout` is given).

    Errors call the tool `name`, or by its first word. `env` is added to this process's environment; messages are
    asked for in English. The tool gets a session of its own, and is ended when this process dies. SetupError when it
    is missing, fails, or misses its deadline; DiskFullError when it says that no space is left.
    """
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    with _start(argv, cwd=cwd, env=env, stdin=stdin, stdout=stdout) as child:
        try:
            stream = child.stderr if stdout is not None else child.stdout
            limit = _Limit(name or argv[0], time.monotonic() + timeout_s)
            for line in _lines(_chunks(stream, limit)):
                tail.append(line)
                if on_line is not None:
                    on_line(line)
            _wait(child, limit)
        except BaseException:
            _end(child)
            raise
    if child.returncode != 0:
        raise _failure(name or argv[0], child.returncode, tail)
    return "\n".join(tail)


def read_tool(argv: Sequence[str], *, timeout_s: float, max_bytes: int = 65536) -> str:
    """Standard output of a short command, cut at `max_bytes`. SetupError when it fails or is too slow."""
    taken = bytearray()
    with _start(argv, stderr=subprocess.DEVNULL) as child:
        try:
            limit = _Limit(argv[0], time.monotonic() + timeout_s)
            for chunk in _chunks(child.stdout, limit):
                taken += chunk[: max_bytes - len(taken)]
            _wait(child, limit)
        except BaseException:
            _end(child)
            raise
    if child.returncode != 0:
        raise SetupError(f"{argv[0]} failed with status {child.returncode}")
    return bytes(taken).decode(errors="replace")


def _start(
    argv: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: IO[bytes] | None = None,
    stdout: IO[bytes] | None = None,
    stderr: int | None = None,
) -> subprocess.Popen[bytes]:
    path = tool_path()
    if shutil.which(argv[0], path=path) is None:
        raise SetupError(f"{argv[0]} is not installed", hint="run `mayfly setup`, or install it")
    # a tool must not outlive a set-up that was killed: then the shell gets SIGTERM and passes it to the whole group,
    # which lets tools remove their own files
    guard = ["setpriv", "--pdeathsig", "TERM", "--"] if shutil.which("setpriv", path=path) else []
    guard += ["sh", "-c", _GUARD, "guard"]
    merged = {**os.environ, "PATH": path, "LC_ALL": "C.UTF-8", "LANGUAGE": "", **(env or {})}
    return subprocess.Popen(
        [*guard, *argv],
        cwd=cwd,
        env=merged,
        stdin=subprocess.DEVNULL if stdin is None else stdin,
        stdout=subprocess.PIPE if stdout is None else stdout,
        stderr=stderr or (subprocess.STDOUT if stdout is None else subprocess.PIPE),
        start_new_session=True,
    )


@dataclass(frozen=True)
class _Limit:
    """When a tool has to be done; `name` is for the message."""

    name: str
    give_up_at_s: float

    @property
    def left_s(self) -> float:
        return self.give_up_at_s - time.monotonic()

    def missed(self) -> SetupError:
        return SetupError(f"{self.name} did not finish in its time", retryable=True)


def _lines(chunks: Iterator[bytes]) -> Iterator[str]:
    """Lines of bounded length, empty ones left out."""
    pending = b""
    for chunk in chunks:
        *lines, rest = (pending + chunk).replace(b"\r", b"\n").split(b"\n")
        pending = rest[-_LINE_MAX:]
        for line in lines:
            if text := line[:_LINE_MAX].decode(errors="replace").rstrip():
                yield text
    if pending:
        yield pending.decode(errors="replace")


def _chunks(stream: IO[bytes] | None, limit: _Limit) -> Iterator[bytes]:
    if stream is None:
        return
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while True:
            if limit.left_s <= 0:
                raise limit.missed()
            if not selector.select(min(limit.left_s, 1.0)):
                continue
            chunk = os.read(stream.fileno(), 65536)
            if not chunk:
                return
            yield chunk


def _wait(child: subprocess.Popen[bytes], limit: _Limit) -> None:
    try:
        child.wait(max(limit.left_s, 0.1))
    except subprocess.TimeoutExpired:
        raise limit.missed() from None


def _end(child: subprocess.Popen[bytes]) -> None:
    """End the tool and what it started; it may remove its own files first."""
    for number, grace_s in ((signal.SIGTERM, _TERMINATE_GRACE_S), (signal.SIGKILL, _TERMINATE_GRACE_S)):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, number)
        with suppress(subprocess.TimeoutExpired):
            child.wait(grace_s)
            return


def _failure(name: str, status: int, tail: deque[str]) -> SetupError:
    words = "\n  ".join(list(tail)[-_ERROR_LINES:])
    if any("No space left on device" in line for line in tail):
        return DiskFullError(
            f"{name} ran out of disk space", hint="free some space, or set MAYFLY_HOME to another disk"
        )
    if unfetched := [line for line in tail if _UNFETCHED in line]:
        _, _, what = unfetched[0].partition(_UNFETCHED)
        return DownloadError(
            f"{name} could not download {what.strip()[:_WHAT_MAX]}",
            hint="see to the network or the proxy, then run the same again",
        )
    return SetupError(
        f"{name} failed with status {status}:\n  {words}" if words else f"{name} failed with status {status}"
    )
