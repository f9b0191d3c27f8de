"""What a machine that waits for its program does beforehand: it touches the memory that the program's start will touch.

A machine just restored has none of its memory mapped: the first touch of each page leaves the guest, and the smallest
program touches some three thousand. So, while nobody wants the machine yet, the pages of the runner that waits are
read, and where they are its own written back as they are; and the life of a program is gone through once with a child
that does next to nothing. No user's code has been in the machine by then, and nothing that a program could see is
changed. It is done in small pieces, and given up as soon as the host closes the connection or a program comes.
"""

from __future__ import annotations

import os

from mayfly.agent import process
from mayfly.agent.execution import Execution
from mayfly.agent.loop import log
from mayfly.agent.requests import ExecRequest, RequestError
from mayfly.guest.frames import FrameType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from mayfly.agent.connection import Connection
    from mayfly.agent.server import Server

__all__ = ["begin_warming", "rehearse", "touch"]

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_ENTRY_BYTES = 8  # of /proc/PID/pagemap
_PRESENT = 1 << 63
_SHARED = 1 << 61
"""The page is a file's, or shared: not the process's own."""
_AT_ONCE = 64
_TOUCHED_MAX_BYTES = 48 << 20
_READS_CONTROL = b"0 0x3 "
"""How a process that waits in `read` on descriptor 3 shows itself."""
_NAME = ".mayfly-rehearsal"
_SOURCE = b"print(1)\n"
_REQUEST = {
    "nonce": "rehearsal",
    "lang": "python",
    "filename": "rehearsal.py",
    "program_bytes": 0,
    "args": [],
    "env": {},
    "stdin": False,
    "limits": {"timeout_s": 60.0, "cpu_s": None, "pids": 16, "mem_bytes": None, "output_bytes": 1024},
}
_CONTROL_FD = 3
_REQUEST_FD = 4


class _Warming:
    """The operation `warm`: one piece after the other, and other connections are served in between."""

    full = False

    def __init__(self, server: Server, connection: Connection) -> None:
        self._server = server
        self._connection = connection
        self._rehearsed: Execution | None = None
        self._over = False
        pid = server.runners.waiting_pid
        self._pieces = iter(()) if pid is None else touch(pid, lambda: server.runners.waiting_pid == pid)
        self._go_on()

    def _go_on(self) -> None:
        if self._over:
            return
        try:
            next(self._pieces)
        except StopIteration:
            self._rehearse()
        except OSError as error:
            log(f"warming: {error}")
            self._rehearse()
        else:
            self._server.loop.call_in(0, self._go_on)

    def _rehearse(self) -> None:
        if self._server.runners.waiting_pid is None:
            self._end()  # a program has come
            return
        try:
            self._rehearsed = rehearse(self._server, self._end)
        except (OSError, RequestError) as error:
            log(f"warming: {error}")
            self._end()

    def _end(self) -> None:
        if not self._over:
            self._over = True
            self._connection.send(FrameType.ANSWER, {})
            self._connection.finish()

    def frame(self, _: object) -> None:
        """Nothing may follow."""
        raise RequestError("bad_request", "nothing may follow this request")

    def resume_output(self) -> None:
        """Nothing is sent before the answer."""

    def abort(self) -> None:
        """The host wants the machine now."""
        self._over = True
        if self._rehearsed is not None:
            self._rehearsed.abort()


def begin_warming(server: Server, connection: Connection, _: dict[str, Any]) -> _Warming:
    """Gets the machine ready for a program that comes later; what does not work is left out."""
    return _Warming(server, connection)


def touch(pid: int, still: Callable[[], bool]) -> Iterator[None]:
    """Reads every page that a process has, and writes back what is its own; a piece at each step. Raises OSError.

    It must wait on its control socket, for which it is looked at once, and for as long as `still` says.
    """
    with open(f"/proc/{pid}/syscall", "rb", buffering=0) as file:
        if not file.read(64).startswith(_READS_CONTROL):
            return
    touched = 0
    pagemap = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    memory = os.open(f"/proc/{pid}/mem", os.O_RDWR | os.O_CLOEXEC)
    try:
        for start, end, writable in _regions(pid):
            for at, count, own in _runs(pagemap, start, end):
                yield
                if touched >= _TOUCHED_MAX_BYTES or not still():
                    return
                data = os.pread(memory, count * _PAGE_BYTES, at)
                if writable and own:
                    os.pwrite(memory, data, at)
                touched += len(data)
    finally:
        os.close(pagemap)
        os.close(memory)


def _regions(pid: int) -> list[tuple[int, int, bool]]:
    """Start, end, and whether it may be written, of what is mapped."""
    with open(f"/proc/{pid}/maps", "rb") as file:
        lines = file.read().splitlines()
    found = []
    for line in lines:
        addresses, rights, _ = line.split(None, 2)
        if rights.startswith(b"r") and b"[v" not in line:  # the kernel's own regions cannot be read this way
            start, _, end = addresses.partition(b"-")
            found.append((int(start, 16), int(end, 16), rights[1:2] == b"w" and rights.endswith(b"p")))
    return found


def _runs(pagemap: int, start: int, end: int) -> Iterator[tuple[int, int, bool]]:
    """Address, number, and whether they are the process's own, of pages in a row that are there."""
    data = os.pread(pagemap, (end - start) // _PAGE_BYTES * _ENTRY_BYTES, start // _PAGE_BYTES * _ENTRY_BYTES)
    first, kind = 0, 0
    for index, entry in enumerate((*memoryview(data).cast("Q"), 0)):
        now = 0 if not entry & _PRESENT else 1 if entry & _SHARED else 2
        if now != kind or index - first == _AT_ONCE:
            if kind:
                yield start + first * _PAGE_BYTES, index - first, kind == 2
            first, kind = index, now


class _Nobody:
    """Stands for the connection of an execution that nobody asked for."""

    congested = False

    def __init__(self, over: Callable[[], None]) -> None:
        self._over = over

    def send(self, *_: object) -> None:
        """Nobody listens."""

    def resume_reading(self) -> None:
        """Nobody writes."""

    def fail(self, code: str, message: str) -> None:
        """It is over, and did not go well."""
        log(f"rehearsal: {code}: {message}")
        self._over()

    def finish(self) -> None:
        """It is over."""
        self._over()


def rehearse(server: Server, over: Callable[[], None]) -> Execution:
    """Goes through a program's life once; `over` is called at its end. Raises OSError or RequestError."""
    request = ExecRequest(_REQUEST)
    environment = process.base_environment(server.settings)
    program = process.Program(_NAME, _SOURCE, args=(), env=environment, rlimits=())
    child = server.spawn(lambda enclosure: process.spawn_function(server.settings, enclosure, _act))
    execution = Execution(server.loop, _Nobody(over), request, child)  # type: ignore[arg-type]
    execution.start(program, server.memory_bytes)
    return execution


def _act() -> None:
    """In the child: what a runner does with a program, but for running it."""
    import marshal

    os.read(_CONTROL_FD, 64)
    source = os.read(_REQUEST_FD, 4096)[-len(_SOURCE) :]
    code = marshal.dumps(compile(source, _NAME, "exec", dont_inherit=True))
    try:
        fd = os.open(".", os.O_RDWR | os.O_TMPFILE, 0o600)  # without a name: it may be killed at any point
        os.write(fd, code)
        os.pread(fd, len(code), 0)
        os.close(fd)
    except OSError:
        pass
    os.close(_REQUEST_FD)
    os.close(_CONTROL_FD)
    os.write(1, b"1\n")
    os._exit(0)
