"""Starting the program's first process: credentials, limits, descriptors; and the runner kept ready for Python."""

from __future__ import annotations

import fcntl
import os
import resource
import struct
import sys

from mayfly.agent import kernel
from mayfly.agent.bare import signal, socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Never

    from mayfly.agent.enclosure import CgroupEnclosure, TreeEnclosure

    Enclosure = CgroupEnclosure | TreeEnclosure
    Rlimits = Sequence[tuple[int, int]]

__all__ = [
    "Child",
    "Program",
    "Settings",
    "base_environment",
    "preload_list",
    "send_request",
    "set_terminal_size",
    "spawn_bash",
    "spawn_command",
    "spawn_function",
    "spawn_runner",
]

_OPEN_FILES = 1024
_FILE_BYTES = 4 << 30
_PRELOAD_MAX = 256
_PRELOAD_MAX_BYTES = 16384
_CONTROL_FD = 3
_REQUEST_FD = 4
_TIOCSCTTY = 0x540E
_TIOCSWINSZ = 0x5414


class Settings:
    """Where programs run and as whom. `uid` None keeps the agent's own user (plain mode without root).

    `preload` are modules that a runner imports beforehand, where there is memory for it.
    """

    __slots__ = ("bash", "home", "in_guest", "preload", "python", "site", "uid")

    def __init__(
        self,
        *,
        home: str,
        site: str,
        python: str,
        bash: str,
        uid: int | None,
        in_guest: bool,
        preload: Sequence[str] = (),
    ) -> None:
        self.preload = preload
        self.home = home
        self.site = site
        self.python = python
        self.bash = bash
        self.uid = uid
        self.in_guest = in_guest


class Program:
    """What is to be run: `source` is written to `filename` in the home directory.

    `rlimits` are pairs of a resource's number and a limit, which the first process sets for itself.
    """

    __slots__ = ("args", "env", "filename", "rlimits", "source")

    def __init__(
        self, filename: str, source: bytes, *, args: Sequence[str], env: dict[str, str], rlimits: Rlimits
    ) -> None:
        self.filename = filename
        self.source = source
        self.args = args
        self.env = env
        self.rlimits = rlimits


class Child:
    """A started process: its pid and the agent's ends of its pipes. `request` is -1 for one that takes none.

    `control` reads end-of-file when the program itself starts, or a message when it cannot.
    """

    __slots__ = ("control", "enclosure", "pid", "request", "stderr", "stdin", "stdout")

    def __init__(self, enclosure: Enclosure) -> None:
        self.enclosure = enclosure
        self.pid = self.stdin = self.stdout = self.stderr = self.control = self.request = -1

    def take(self, name: str) -> int:
        """Hands the descriptor of that name over to the caller."""
        fd: int = getattr(self, name)
        setattr(self, name, -1)
        return fd

    def close(self) -> None:
        """Closes every descriptor that is still here."""
        for name in ("stdin", "stdout", "stderr", "control", "request"):
            fd = self.take(name)
            if fd >= 0:
                os.close(fd)

    @property
    def dead(self) -> bool:
        """Whether it has ended already, reaped or not."""
        try:
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:
            return True


def preload_list(path: str) -> list[str]:
    """The modules that the file at `path` names, a line each; none where there is no such file, or it is no list."""
    try:
        with open(path, "rb") as file:
            lines = file.read(_PRELOAD_MAX_BYTES + 1).decode().split("\n")
    except (OSError, ValueError):
        return []
    names = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    good = len(names) <= _PRELOAD_MAX and sum(map(len, lines)) + len(lines) <= _PRELOAD_MAX_BYTES
    return names if good and all(part.isidentifier() for name in names for part in name.split(".")) else []


def base_environment(settings: Settings) -> dict[str, str]:
    """The variables every program starts with; the request's own are laid over them."""
    return {
        "HOME": settings.home,
        "LANG": "C.UTF-8",
        "LOGNAME": "user",
        "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin",
        "SHELL": "/bin/bash",
        "USER": "user",
    }


def spawn_runner(settings: Settings, enclosure: Enclosure, *, preload: Sequence[str] = ()) -> Child:
    """An interpreter that waits for `send_request`; see `sitecustomize.py`. Raises OSError.

    One that imports modules beforehand says on its control socket, in a line, when it has.
    """
    slot = f"{settings.home}/.mayfly-{os.urandom(6).hex()}.pyc"
    env = base_environment(settings) | {"PYTHONPATH": settings.site, "MAYFLY_RUNNER_SLOT": slot}
    if preload:
        env["MAYFLY_RUNNER_PRELOAD"] = " ".join(preload)

    def execute() -> None:
        os.execve(settings.python, ["python3", slot], env)  # noqa: S606

    return _spawn(settings, enclosure, execute, takes_request=True)


def spawn_bash(settings: Settings, enclosure: Enclosure, program: Program) -> Child:
    """A shell that runs `program` from `filename` in the home directory, at once. Raises OSError."""

    def execute() -> None:
        # Not through a link that an earlier program of the same user left there.
        if os.path.islink(program.filename):
            os.unlink(program.filename)
        fd = os.open(program.filename, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o644)
        rest = program.source
        while rest:
            rest = rest[os.write(fd, rest) :]
        os.close(fd)
        for which, limit in program.rlimits:
            resource.setrlimit(which, (limit, limit))
        os.execve(settings.bash, ["bash", program.filename, *program.args], program.env)  # noqa: S606

    return _spawn(settings, enclosure, execute, takes_request=False)


def spawn_command(
    settings: Settings,
    enclosure: Enclosure,
    argv: Sequence[str],
    *,
    env: dict[str, str],
    cwd: str,
    keeps_control: bool = False,
    pty: tuple[int, int] | None = None,
) -> Child:
    """Any program, found on the PATH of `env`, at once. Raises OSError.

    With `keeps_control` it has the control socket as descriptor 3 and speaks over it. With `pty` (columns, rows) its
    three streams are one terminal, whose other side is `stdin` and `stdout` of the child; `stderr` is -1.
    """

    def execute() -> None:
        os.chdir(cwd)
        if pty is not None:
            fcntl.ioctl(0, _TIOCSCTTY, 0)
        if keeps_control:
            os.set_inheritable(_CONTROL_FD, True)
        try:
            os.execvpe(argv[0], list(argv), env)  # noqa: S606
        except OSError as error:
            raise OSError(error.errno, error.strerror, argv[0]) from None  # not the last place that was looked at

    return _spawn(settings, enclosure, execute, takes_request=False, pty=pty)


def spawn_function(settings: Settings, enclosure: Enclosure, work: Callable[[], None]) -> Child:
    """A child of ours that takes a request as a runner does, calls `work`, and must end there. Raises OSError."""
    return _spawn(settings, enclosure, work, takes_request=True)


def set_terminal_size(fd: int, cols: int, rows: int) -> None:
    """Tells a terminal its size in characters, and its programs by SIGWINCH. Raises OSError."""
    fcntl.ioctl(fd, _TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))


def send_request(child: Child, program: Program) -> None:
    """Hands a program to a waiting runner. Raises OSError when the runner is gone."""
    limits = " ".join(f"{which}:{limit}" for which, limit in program.rlimits)
    args = [str(len(program.args)), *program.args]
    env = [f"{name}={value}" for name, value in program.env.items()]
    head = "\0".join([program.filename, limits, *args, *env]).encode("utf-8", "surrogateescape")
    content = memoryview(head + program.source)
    offset = 0
    while offset < len(content):
        offset += os.pwrite(child.request, content[offset:], offset)
    os.close(child.take("request"))
    os.write(child.control, f"{len(head)} {len(program.source)}\n".encode())


def _open_streams(settings: Settings, child: Child, pty: tuple[int, int] | None) -> list[int]:
    """Gives the child its ends of the streams; returns the program's, for descriptors 0 to 2."""
    if pty is None:
        stdin_read, child.stdin = os.pipe()
        child.stdout, stdout_write = os.pipe()
        child.stderr, stderr_write = os.pipe()
        return [stdin_read, stdout_write, stderr_write]
    child.stdin, terminal = os.openpty()
    child.stdout = _above(child.stdin)
    set_terminal_size(terminal, *pty)
    if settings.uid is not None:
        os.fchown(terminal, settings.uid, settings.uid)
    return [terminal, _above(terminal), _above(terminal)]


def _spawn(
    settings: Settings,
    enclosure: Enclosure,
    execute: Callable[[], None],
    *,
    takes_request: bool,
    pty: tuple[int, int] | None = None,
) -> Child:
    """Forks; the child sets itself up and calls `execute`. All descriptors are cleaned up on failure."""
    child = Child(enclosure)
    theirs: list[int] = []
    try:
        theirs += _open_streams(settings, child, pty)
        ours, other = socket.socketpair()
        child.control = ours.detach()
        theirs.append(other.detach())
        if takes_request:
            child.request = os.memfd_create("mayfly-request")
        pid = os.fork()
        if pid == 0:
            _become(settings, enclosure, theirs, child.request, execute)
        child.pid = pid
        enclosure.adopt(pid)
    except BaseException:
        child.close()
        raise
    finally:
        for fd in theirs:
            os.close(fd)
    for fd in (child.stdin, child.stdout, child.stderr, child.control):
        if fd >= 0:
            os.set_blocking(fd, False)
    return child


def _become(
    settings: Settings, enclosure: Enclosure, fds: Sequence[int], request: int, execute: Callable[[], None]
) -> Never:
    """In the child: everything between fork and exec. Never returns; a failure is told through the control end."""
    control = fds[3]
    try:
        signal.set_wakeup_fd(-1)
        os.setsid()
        enclosure.join()
        _leave_privileges(settings)
        _place_descriptors(fds, request)
        control = _CONTROL_FD
        os.umask(0o022)
        os.chdir(settings.home)
        # Some are ignored by Python, some by the agent, and what is ignored stays so over exec.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        execute()
    except BaseException as error:  # noqa: BLE001  nothing may unwind into a second agent
        os.write(control, f"cannot start: {error}".encode(errors="replace")[:1000])
    finally:
        os._exit(127)
    sys.exit(127)


def _leave_privileges(settings: Settings) -> None:
    if settings.in_guest:
        with open("/proc/self/oom_score_adj", "wb", buffering=0) as score:
            score.write(b"0")
        os.setpriority(os.PRIO_PROCESS, 0, 0)
    soft, hard = _OPEN_FILES, 4 * _OPEN_FILES
    resource.setrlimit(resource.RLIMIT_NOFILE, _lowered(resource.RLIMIT_NOFILE, soft, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, _lowered(resource.RLIMIT_FSIZE, _FILE_BYTES, _FILE_BYTES))
    if settings.uid is not None:
        os.setgroups([])
        os.setresgid(settings.uid, settings.uid, settings.uid)
        os.setresuid(settings.uid, settings.uid, settings.uid)
    kernel.no_new_privileges()
    if not settings.in_guest:
        kernel.die_with_parent(signal.SIGKILL)  # in the guest the kernel ends with its first process


def _lowered(which: int, soft: int, hard: int) -> tuple[int, int]:
    """`soft` and `hard`, but never above the hard limit that is there."""
    present = resource.getrlimit(which)[1]
    if present != resource.RLIM_INFINITY:
        hard = min(hard, present)
    return min(soft, hard), hard


def _place_descriptors(fds: Sequence[int], request: int) -> None:
    """Pipes to 0, 1, 2, the control socket to 3, the request to 4; nothing else stays open."""
    high = [_above(fd) for fd in (*fds, *([request] if request >= 0 else []))]
    for target, fd in enumerate(high):
        os.dup2(fd, target, inheritable=True)
    if request < 0:
        os.set_inheritable(_CONTROL_FD, False)  # its closing by exec says that the program has started
    os.closerange(len(high), 65536)


def _above(fd: int) -> int:
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 16)
