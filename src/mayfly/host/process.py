"""Child processes held by pidfd: started without blocking the loop, awaited without threads, killed without races."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel

from mayfly.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Child", "adopt", "become_subreaper", "spawn"]

_PR_SET_CHILD_SUBREAPER = 36
_STDERR = 2
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)


@dataclass(slots=True)
class Child:
    """A process of ours. `exit_code` is None while it runs; -n when signal n ended it."""

    pid: int
    pidfd: int
    exit_code: int | None = None
    _exited: anyio.Event = field(default_factory=anyio.Event)

    def kill(self, signum: int = signal.SIGKILL) -> None:
        """Send a signal; nothing happens when the process is gone."""
        if self.exit_code is None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signum)

    async def wait(self) -> int:
        """Wait for the end and return the exit code. Only one task may wait; others use the returned value."""
        while self.exit_code is None:
            await anyio.wait_readable(self.pidfd)
            self._collect()
        return self.exit_code

    def _collect(self) -> None:
        try:
            result = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG)
        except ChildProcessError:  # somebody else's child, or collected by a SIGCHLD handler
            self.exit_code = -signal.SIGKILL
        else:
            if result is None:
                return
            killed = result.si_code in (os.CLD_KILLED, os.CLD_DUMPED)
            self.exit_code = -result.si_status if killed else result.si_status
        self.close()

    def close(self) -> None:
        """Give the pidfd back. Idempotent."""
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


def spawn(
    argv: Sequence[str],
    *,
    stdin: int = subprocess.DEVNULL,
    stdout: int = subprocess.DEVNULL,
    stderr: int = subprocess.DEVNULL,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    new_session: bool = True,
    closes_descriptors: bool = False,
) -> Child:
    """Start a program and hold it by pidfd. HostError when it cannot be started.

    It gets no descriptor of ours but its streams. One that `closes_descriptors` itself, as the first thing it does,
    is started in a quarter of the time.
    """
    streams = (stdin, stdout, stderr)
    quick = closes_descriptors and new_session and cwd is None
    quick = quick and all(stream > _STDERR or stream == subprocess.DEVNULL for stream in streams)
    try:
        if quick:
            pid = _spawn_quickly(argv, streams, os.environ if env is None else env)
        else:
            process = subprocess.Popen(
                list(argv),
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                env=env,
                cwd=cwd,
                start_new_session=new_session,
            )
            pid = process.pid
            process.returncode = 0  # the pidfd waits for it, Popen must not
    except OSError as error:
        raise HostError(f"cannot start {argv[0]}: {error.strerror}") from error
    return Child(pid, os.pidfd_open(pid))


def _spawn_quickly(argv: Sequence[str], streams: tuple[int, int, int], env: Mapping[str, str]) -> int:
    """As `subprocess.Popen` in a new session, but for descriptors that we were given as inheritable; returns the pid.

    Each stream is DEVNULL or above 2, so that no redirection overwrites the source of a later one.
    """
    program = argv[0] if os.sep in argv[0] else shutil.which(argv[0], path=env.get("PATH")) or argv[0]
    actions: list[tuple[int, int, str, int, int] | tuple[int, int, int]] = [
        (os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0)
        if stream == subprocess.DEVNULL
        else (os.POSIX_SPAWN_DUP2, stream, number)
        for number, stream in enumerate(streams)
    ]
    return os.posix_spawn(
        program, list(argv), env, file_actions=actions, setsid=True, setsigmask=(), setsigdef=_IGNORED_BY_PYTHON
    )


def adopt(pid: int) -> Child:
    """Hold a process that became our child because we are its subreaper. HostError when it is gone."""
    try:
        return Child(pid, os.pidfd_open(pid))
    except ProcessLookupError as error:
        raise HostError(f"process {pid} ended before it could be watched") from error


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise HostError(f"prctl {option} failed: {os.strerror(ctypes.get_errno())}")


def become_subreaper() -> None:
    """Make orphans of our children ours, so that they can be awaited."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
