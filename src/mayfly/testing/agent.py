"""The agent as a plain process of this host, and a small blocking client that speaks raw frames to it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mayfly.guest.frames import FROM_GUEST, PAYLOAD_MAX_BYTES, Frame, FrameDecoder, FrameType, encode
from mayfly.host.process import spawn

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["AgentProcess", "ProgramResult", "agent_process", "exec_frames", "read_frames", "result_of"]

_START_DEADLINE_S = 20.0
_READS_CONTROL = "0 0x3 "
"""How a process that waits in `read` on descriptor 3 shows itself."""
_NONCE = "nonce-of-this-test"
_LIMITS = {"timeout_s": 20.0, "cpu_s": None, "pids": 64, "mem_bytes": 256 << 20, "output_bytes": 1 << 20}


@dataclass(frozen=True, slots=True)
class ProgramResult:
    """What came back for one program. `report` is EXIT's payload, `error` ERROR's; the other one is None."""

    stdout: bytes
    stderr: bytes
    report: dict[str, Any] | None
    error: dict[str, Any] | None
    frames: list[Frame] = field(repr=False)

    @property
    def exit_code(self) -> int | None:
        """The program's own, or None when it did not end by itself."""
        return None if self.report is None else self.report["exit_code"]

    @property
    def reason(self) -> str | None:
        """How it ended."""
        return None if self.report is None else self.report["reason"]


def exec_frames(
    program: bytes,
    *,
    lang: str = "python",
    filename: str | None = None,
    args: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    stdin: bytes | None = None,
    **limits: object,
) -> bytes:
    """The frames that run `program`, with its whole input; `limits` override the generous ones."""
    request: dict[str, object] = {
        "nonce": _NONCE,
        "lang": lang,
        "filename": filename or {"python": "main.py", "bash": "main.sh"}.get(lang, "main"),
        "program_bytes": len(program),
        "args": list(args),
        "env": dict(env or {}),
        "stdin": stdin is not None,
        "limits": _LIMITS | limits,
    }
    wire = encode(FrameType.EXEC, request)
    for start in range(0, len(program), PAYLOAD_MAX_BYTES):
        wire += encode(FrameType.PROGRAM, program[start : start + PAYLOAD_MAX_BYTES])
    if stdin is not None:
        for start in range(0, len(stdin), PAYLOAD_MAX_BYTES):
            wire += encode(FrameType.STDIN, stdin[start : start + PAYLOAD_MAX_BYTES])
        wire += encode(FrameType.STDIN, b"")
    return wire


class AgentProcess:
    """An agent behind the Unix socket `path`. Made by `agent_process`."""

    def __init__(self, path: Path, pid: int) -> None:
        self.path = path
        self.pid = pid

    def wait_until_preloaded(self) -> None:
        """Returns when the runner that imports modules beforehand waits for a program. TimeoutError else."""
        until = time.monotonic() + _START_DEADLINE_S
        while time.monotonic() < until:
            for pid, preloads in self.runners().items():
                with contextlib.suppress(OSError):
                    if preloads and Path(f"/proc/{pid}/syscall").read_text().startswith(_READS_CONTROL):
                        return
            time.sleep(0.01)
        raise TimeoutError("no runner has preloaded")

    def runners(self) -> dict[int, bool]:
        """The agent's processes; True for each that was started to import modules beforehand."""
        found = {}
        for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split():
            with contextlib.suppress(OSError):
                found[int(pid)] = b"MAYFLY_RUNNER_PRELOAD=" in Path(f"/proc/{pid}/environ").read_bytes()
        return found

    def connect(self, *, timeout_s: float = 30.0) -> socket.socket:
        """A connection; every read on it ends after `timeout_s`."""
        until = time.monotonic() + timeout_s
        while True:
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(timeout_s)
            try:
                connection.connect(str(self.path))
            except OSError as error:
                connection.close()
                if not isinstance(error, BlockingIOError) or time.monotonic() > until:
                    raise
                time.sleep(0.001)  # its backlog is full for the moment
            else:
                return connection

    def ask(self, wire: bytes) -> list[Frame]:
        """Everything the agent answers to these bytes until it closes."""
        with self.connect() as connection:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(wire)
            return read_frames(connection)

    def run(self, program: str | bytes, **options: Any) -> ProgramResult:
        """Runs a program to its end; `options` are those of `exec_frames`."""
        source = program.encode() if isinstance(program, str) else program
        return result_of(self.ask(exec_frames(source, **options)))

    def answers(self) -> bool:
        """Whether a PING gets its PONG."""
        frames = self.ask(encode(FrameType.PING, {}))
        return [frame.type for frame in frames] == [FrameType.PONG]


def read_frames(connection: socket.socket) -> list[Frame]:
    """The frames that come until the other side closes."""
    decoder = FrameDecoder(FROM_GUEST)
    frames: list[Frame] = []
    while True:
        try:
            data = connection.recv(PAYLOAD_MAX_BYTES)
        except ConnectionResetError:
            data = b""
        if not data:
            return frames
        frames += decoder.feed(data)


def result_of(frames: list[Frame]) -> ProgramResult:
    """The frames of one execution, put together."""

    def joined(kind: int) -> bytes:
        return b"".join(frame.payload for frame in frames if frame.type == kind)

    def last(kind: int) -> dict[str, Any] | None:
        return frames[-1].json() if frames and frames[-1].type == kind else None

    return ProgramResult(
        stdout=joined(FrameType.STDOUT),
        stderr=joined(FrameType.STDERR),
        report=last(FrameType.EXIT),
        error=last(FrameType.ERROR),
        frames=frames,
    )


def _listens(path: Path) -> bool:
    """Whether somebody accepts connections there; between `bind` and `listen` the socket is there and nobody does."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


@contextlib.contextmanager
def agent_process(*, preload: Sequence[str] = (), mem_mib: int | None = None) -> Iterator[AgentProcess]:
    """Starts an agent, and ends it with everything it started.

    `preload` are modules that its runner imports beforehand, `mem_mib` is what it takes for the machine's memory.
    """
    directory = Path(tempfile.mkdtemp(prefix="mayfly-agent-test-"))
    directory.chmod(0o755)
    path = directory / "a.sock"
    env = {**os.environ, "TMPDIR": str(directory)}
    command = [sys.executable, "-m", "mayfly.agent", "--unix", str(path)]
    if mem_mib is not None:
        command += ["--mem-mib", str(mem_mib)]
    if preload:
        listed = directory / "preload"
        listed.write_text("\n".join(preload))
        command += ["--preload", str(listed)]
    child = spawn(command, env=env, stderr=2)
    try:
        until = time.monotonic() + _START_DEADLINE_S
        while not _listens(path) and time.monotonic() < until:
            time.sleep(0.005)
        yield AgentProcess(path, child.pid)
    finally:
        child.kill(signal.SIGTERM)
        os.waitid(os.P_PIDFD, child.pidfd, os.WEXITED)
        child.close()
        shutil.rmtree(directory, ignore_errors=True)
