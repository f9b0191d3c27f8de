"""The operations on processes, and the connections that follow one."""

from __future__ import annotations

import os

from mayfly.agent.fields import RequestError, bad, environment, number, optional_number, text, truth
from mayfly.agent.port import begin_port
from mayfly.guest.frames import PAYLOAD_MAX_BYTES, FrameType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from mayfly.agent.connection import Begin, Connection
    from mayfly.agent.jobs import Job
    from mayfly.agent.process import Settings
    from mayfly.agent.server import Server
    from mayfly.guest.frames import Frame

__all__ = ["OPERATIONS", "Follower", "JobRequest"]

_ARGS_MAX = 4096
_TEXT_MAX = 1 << 20
_BUFFER_MAX_BYTES = 4 << 20
_SIZE_MAX = 2000
_STREAMS = {"stdout": FrameType.STDOUT, "stderr": FrameType.STDERR}


class JobRequest:
    """A process to start: see `process_start` in `protocol/guest-frames.md` for the fields."""

    __slots__ = ("argv", "buffer_bytes", "command", "cwd", "env", "keep", "pids", "pty", "stdin", "timeout_s")

    def __init__(self, settings: Settings, shape: dict[str, Any]) -> None:
        if (shape.get("shell") is None) == (shape.get("argv") is None):
            raise bad("argv", "it or shell, and not both")
        if shape.get("shell") is not None:
            self.command = text(shape, "shell", _TEXT_MAX)
            self.argv = [settings.bash, "-c", self.command]
        else:
            self.argv = _argv(shape["argv"])
            self.command = " ".join(self.argv)
        self.cwd = os.path.join(settings.home, text(shape, "cwd", 4096)) if shape.get("cwd") else settings.home
        self.env = environment(shape)
        self.stdin = truth(shape, "stdin")
        self.keep = truth(shape, "keep")
        self.timeout_s = optional_number(shape, "timeout_s", 0, 7 * 86400)
        self.pids = int(number(shape, "pids", 1, 1 << 20))
        self.buffer_bytes = int(number(shape, "buffer_bytes", 0, _BUFFER_MAX_BYTES))
        size = shape.get("pty")
        if size is not None and not isinstance(size, dict):
            raise bad("pty", "an object or null")
        self.pty = None if size is None else _size(size)


def _argv(value: object) -> list[str]:
    if not isinstance(value, list) or not 1 <= len(value) <= _ARGS_MAX or not value[0]:
        raise bad("argv", f"1 to {_ARGS_MAX} texts, the first not empty")
    if not all(isinstance(each, str) and "\0" not in each for each in value):
        raise bad("argv", "texts without NUL")
    return value


def _size(shape: dict[str, Any]) -> tuple[int, int]:
    return int(number(shape, "cols", 1, _SIZE_MAX)), int(number(shape, "rows", 1, _SIZE_MAX))


class Follower:
    """A connection that follows a process: its output from `offset` on, its end; and has its input."""

    def __init__(self, connection: Connection, job: Job, offset: int, *, owns: bool) -> None:
        self._connection = connection
        self._job = job
        self._owns = owns
        self._begun = False
        self._gone = False
        self.offset = offset
        job.followers.append(self)

    def begin(self) -> None:
        """It has started."""
        self._begun = True
        self._connection.send(FrameType.STARTED, {"nonce": "", "pid": self._job.pid, "offset": self.offset})
        self.push()

    def refuse(self, code: str, why: str) -> None:
        """It has not."""
        self._leave()
        self._connection.fail(code, why)

    @property
    def behind(self) -> bool:
        """Whether the host does not keep up."""
        return self._connection.congested

    def push(self) -> None:
        """Sends what is there, as far as the host keeps up, and at last the end."""
        log = self._job.log
        while self._begun and not self._gone and not self._connection.congested:
            if self.offset < log.start:
                self._connection.send(FrameType.GAP, {"offset": log.start, "missing": log.start - self.offset})
                self.offset = log.start
            piece = log.after(self.offset)
            if piece is None:
                break
            offset, stream, data = piece
            data = data[:PAYLOAD_MAX_BYTES]
            self.offset = offset + len(data)
            self._connection.send(_STREAMS[stream], data)
        end = self._job.end
        if self._begun and not self._gone and end is not None and self.offset >= log.end:
            self._leave()
            self._connection.send(FrameType.EXIT, end)
            self._connection.finish()

    def _leave(self) -> None:
        self._gone = True
        if self in self._job.followers:
            self._job.followers.remove(self)

    def room(self) -> None:
        """The process takes input again."""
        self._connection.resume_reading()

    @property
    def full(self) -> bool:
        """Whether the process does not take its input."""
        return self._job.full

    def frame(self, frame: Frame) -> None:
        """STDIN, SIGNAL or RESIZE. Raises RequestError for anything else."""
        if frame.type == FrameType.STDIN:
            self._job.write(frame.payload)
        elif frame.type == FrameType.SIGNAL:
            self._job.signal(frame.json().get("signal"))
        elif frame.type == FrameType.RESIZE:
            self._job.resize(*_size(frame.json()))
        else:
            raise RequestError("bad_request", "only STDIN, SIGNAL and RESIZE may follow this request")

    def resume_output(self) -> None:
        """The host has read."""
        self.push()
        self._job.listen()

    def abort(self) -> None:
        """Nobody follows here any more; a process that is not kept ends."""
        if self._gone:
            return
        self._leave()
        if self._owns:
            self._job.kill()
        self._job.listen()


def _start(server: Server, connection: Connection, args: dict[str, Any]) -> Follower:
    job = server.jobs.start(JobRequest(server.settings, args))
    return Follower(connection, job, 0, owns=not job.request.keep)


def _attach(server: Server, connection: Connection, args: dict[str, Any]) -> Follower:
    job = server.jobs.get(int(number(args, "pid", 0, 1 << 31)))
    offset = int(number(args, "offset", 0, 1 << 53))
    if offset > job.log.end:
        raise bad("offset", f"at most {job.log.end}, which is all that it has written")
    follower = Follower(connection, job, offset, owns=False)
    if job.running or job.end is not None:
        server.loop.call_in(0, follower.begin)
    return follower


def _list(server: Server, connection: Connection, _: dict[str, Any]) -> None:
    for job in server.jobs.all():
        connection.send(FrameType.PART, {"items": [job.shape()]})
    _done(connection)


def _signal(server: Server, connection: Connection, args: dict[str, Any]) -> None:
    server.jobs.get(int(number(args, "pid", 0, 1 << 31))).signal(args.get("signal"))
    _done(connection)


def _resize(server: Server, connection: Connection, args: dict[str, Any]) -> None:
    server.jobs.get(int(number(args, "pid", 0, 1 << 31))).resize(*_size(args))
    _done(connection)


def _done(connection: Connection) -> None:
    connection.send(FrameType.ANSWER, {})
    connection.finish()


class _Input:
    """Input for a process from a connection that does not follow it: STDIN frames, the empty one last or PIECE."""

    def __init__(self, connection: Connection, job: Job) -> None:
        self._connection = connection
        self._job = job
        job.on_room.append(connection.resume_reading)

    @property
    def full(self) -> bool:
        """Whether the process does not take its input."""
        return self._job.full

    def frame(self, frame: Frame) -> None:
        """STDIN passes on, empty as its end; an empty PIECE ends this operation only. Raises RequestError."""
        if frame.type == FrameType.STDIN:
            self._job.write(frame.payload)
        elif frame.type == FrameType.PIECE and not frame.payload:
            _done(self._connection)
        else:
            raise RequestError("bad_request", "only STDIN and an empty PIECE may follow this request")

    def resume_output(self) -> None:
        """Only the answer is sent."""

    def abort(self) -> None:
        """Nothing to take back."""
        if self._connection.resume_reading in self._job.on_room:
            self._job.on_room.remove(self._connection.resume_reading)


def _input(server: Server, connection: Connection, args: dict[str, Any]) -> _Input:
    job = server.jobs.get(int(number(args, "pid", 0, 1 << 31)))
    if job.end is not None:
        raise RequestError("process_not_found", f"the process {job.pid} has ended")
    return _Input(connection, job)


OPERATIONS: dict[str, Begin] = {
    "process_start": _start,
    "process_attach": _attach,
    "process_list": _list,
    "process_signal": _signal,
    "process_resize": _resize,
    "process_input": _input,
    "port": begin_port,
}
