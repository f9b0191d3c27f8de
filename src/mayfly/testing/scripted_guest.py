"""A guest without a machine, for tests of what speaks HTTP: code is a script of a few verbs, all else is in memory."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel

from mayfly.errors import (
    AgentLostError,
    FileDeniedError,
    FileMissingError,
    FilePresentError,
    FileSystemError,
    NotFoundError,
    UnsupportedError,
)
from mayfly.guest.shapes import CodeEnd, CodeOutput, ProcessEnd, ProcessInfo, ProcessOutput
from mayfly.model import HostInfo
from mayfly.sandbox_model import CodeError, CodeResult, ContextId, ContextInfo, FileEvent, FileInfo, Metrics

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from mayfly.guest.shapes import CodeEvent, CodeRequest, ProcessEvent, ProcessSpec
    from mayfly.model import HostKind
    from mayfly.vmm.launcher import MachineSpec

__all__ = ["BareLauncher", "BareMachine", "ScriptedGuest"]

_HOME = "/home/user"
_PIECE_BYTES = 64 * 1024


class BareMachine:
    """A machine that is nothing at all. `end` lets it die."""

    def __init__(self, machine_id: str, directory: Path) -> None:
        self.id = machine_id
        self.vsock_path = directory / machine_id
        self.exited = anyio.Event()
        self.greeted = True
        self.destroyed = False

    def cpu_s(self) -> float:
        """As `Machine.cpu_s`."""
        return 0.0

    def last_words(self) -> str:
        """As `Machine.last_words`."""
        return "panic: out of luck"

    async def destroy(self) -> None:
        """As `Machine.destroy`."""
        await anyio.lowlevel.checkpoint()
        self.destroyed = True
        self.exited.set()


class BareLauncher:
    """Gives `BareMachine`s, and keeps what was asked for. `failure` is raised instead, `delay_s` goes before."""

    def __init__(self, directory: Path) -> None:
        self.kind: HostKind = "fake"
        self.machines: list[BareMachine] = []
        self.specs: list[MachineSpec] = []
        self.failure: Exception | None = None
        self.delay_s = 0.0
        self._directory = directory

    def describe(self, image: str = "python") -> HostInfo:
        """As `Launcher.describe`."""
        return HostInfo(kind="fake", firecracker="none", image=image)

    async def launch(self, spec: MachineSpec) -> BareMachine:
        """As `Launcher.launch`."""
        await anyio.sleep(self.delay_s)
        if self.failure is not None:
            raise self.failure
        self.specs.append(spec)
        self.machines.append(BareMachine(spec.id, self._directory))
        return self.machines[-1]


class _Process:
    """A command that prints its own line, and with input what it is given, then ends."""

    def __init__(self, pid: int, spec: ProcessSpec) -> None:
        self.pid = pid
        self.offset = 0
        self.spec = spec
        self.output = (spec.shell or " ".join(spec.argv or ())).encode("utf-8", "surrogatepass")
        self.input, self._taken = anyio.create_memory_object_stream[bytes](100)
        self.ended = False
        if not (spec.stdin or spec.pty):
            self.input.close()

    async def __aiter__(self) -> AsyncIterator[ProcessEvent]:
        yield ProcessOutput(stream="stdout", data=self.output[self.offset :], offset=self.offset)
        if not self.ended:
            with self._taken.clone() as taken:
                async for data in taken:
                    self.output += data
                    yield ProcessOutput(stream="stdout", data=data, offset=len(self.output) - len(data))
        self.end()
        yield ProcessEnd(reason="exit", exit_code=0)

    def end(self) -> None:
        self.ended = True
        self.input.close()
        self._taken.close()

    async def send_stdin(self, data: bytes) -> None:
        if not self.ended and (self.spec.stdin or self.spec.pty):
            self.input.send_nowait(data)

    async def close_stdin(self) -> None:
        self.input.close()

    async def resize(self, cols: int, rows: int) -> None:
        if self.spec.pty is None:
            raise UnsupportedError(f"process {self.pid} has no terminal of {cols} by {rows}")

    async def signal(self, signal: str) -> None:
        del signal
        self.end()


class _Echo:
    """A connection to a port where what is sent comes back."""

    def __init__(self) -> None:
        self._sending, self._receiving = anyio.create_memory_object_stream[bytes](100)

    async def send(self, data: bytes) -> None:
        await self._sending.send(data)

    async def send_eof(self) -> None:
        self._sending.close()

    async def receive(self) -> bytes:
        try:
            return await self._receiving.receive()
        except anyio.EndOfStream:
            return b""

    def close(self) -> None:
        self._sending.close()
        self._receiving.close()


class _Files:
    """The part of a guest that is about files: a path is a directory (None) or bytes."""

    def __init__(self) -> None:
        self._files: dict[str, bytes | None] = {_HOME: None}

    async def stat(self, path: str) -> FileInfo:
        """As `Guest.stat`."""
        path = _whole(path)
        if path not in self._files:
            raise FileMissingError(f"{path}: no such file or directory")
        content = self._files[path]
        return FileInfo(
            path=path,
            name=path.rpartition("/")[2],
            kind="directory" if content is None else "file",
            size=len(content or b""),
            mode=0o644,
            modified_at=0.0,
        )

    async def list_dir(self, path: str, *, depth: int = 1) -> list[FileInfo]:
        """As `Guest.list_dir`."""
        del depth
        if (await self.stat(path)).kind != "directory":
            raise FileSystemError(f"{path}: not a directory")
        inside = _whole(path) + "/"
        return [await self.stat(name) for name in self._files if name.startswith(inside)]

    async def make_dir(self, path: str, *, parents: bool = True) -> FileInfo:
        """As `Guest.make_dir`."""
        whole = _whole(path)
        if whole in self._files and not (parents and self._files[whole] is None):
            raise FilePresentError(f"{path}: it is there already")
        self._files[whole] = None
        return await self.stat(path)

    async def rename(self, path: str, to: str) -> FileInfo:
        """As `Guest.rename`."""
        await self.stat(path)
        self._files[_whole(to)] = self._files.pop(_whole(path))
        return await self.stat(to)

    async def remove(self, path: str, *, recursive: bool = False) -> None:
        """As `Guest.remove`."""
        if (await self.stat(path)).kind == "directory" and not recursive:
            raise FileSystemError(f"{path}: directory not empty")
        del self._files[_whole(path)]

    @asynccontextmanager
    async def read_file(
        self, path: str, *, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """As `Guest.read_file`."""
        if (await self.stat(path)).kind != "file":
            raise FileSystemError(f"{path}: is no file")
        content = self._files[_whole(path)] or b""
        yield _pieces(content[offset : None if length is None else offset + length])

    async def write_file(self, path: str, chunks: AsyncIterable[bytes], **rest: Any) -> FileInfo:
        """As `Guest.write_file`."""
        if _whole(path).startswith("/root"):
            raise FileDeniedError(f"{path}: permission denied")
        content = b"".join([chunk async for chunk in chunks])
        before = self._files.get(_whole(path)) if rest.get("append") else None
        self._files[_whole(path)] = (before or b"") + content
        return await self.stat(path)

    @asynccontextmanager
    async def watch(self, path: str, *, recursive: bool = False) -> AsyncIterator[AsyncIterator[FileEvent]]:
        """As `Guest.watch`; ends after one event."""
        del recursive
        await self.stat(path)
        yield _one(FileEvent(kind="created", path=f"{path}/new"))


class _NoSpare:
    """In the place of a `SpareLink`; `aclose` ends the `processes`."""

    def __init__(self, processes: dict[int, _Process]) -> None:
        self._processes = processes

    async def prepare(self) -> None:
        """Nothing."""

    async def aclose(self) -> None:
        """The sandbox is over."""
        for process in self._processes.values():
            process.end()


class ScriptedGuest(_Files):
    """In the place of `mayfly.guest.sandbox.Guest`.

    Code: `out TEXT`, `err TEXT`, `tiny N` (single bytes), `result TEXT`, `raise NAME`, `sleep SECONDS`, `hang`,
    `lose`, `drop`, a verb a line; other lines do nothing. Port 7 echoes, nothing listens on others.
    """

    def __init__(self, _: Path) -> None:
        super().__init__()
        self._contexts: dict[str, ContextInfo] = {}
        self._processes: dict[int, _Process] = {}
        self.spare = _NoSpare(self._processes)
        self._interrupts: dict[str, anyio.CancelScope] = {}

    async def create_context(self, context_id: str, **rest: Any) -> ContextInfo:
        """As `Guest.create_context`."""
        info = ContextInfo(id=ContextId(context_id), lang=rest["lang"], cwd=rest.get("cwd") or _HOME)
        self._contexts[context_id] = info
        return info

    async def list_contexts(self) -> list[ContextInfo]:
        """As `Guest.list_contexts`."""
        return list(self._contexts.values())

    async def restart_context(self, context_id: str) -> None:
        """As `Guest.restart_context`."""
        await self.interrupt_context(context_id)

    async def remove_context(self, context_id: str) -> None:
        """As `Guest.remove_context`."""
        self._contexts.pop(context_id, None)

    async def interrupt_context(self, context_id: str, *, nonce: str | None = None) -> bool:
        """As `Guest.interrupt_context`."""
        del nonce
        scope = self._interrupts.get(context_id)
        if scope is not None:
            scope.cancel()
        return scope is not None

    async def run_code(self, request: CodeRequest, *, on_event: Callable[[CodeEvent], Awaitable[None]]) -> CodeEnd:
        """As `Guest.run_code`."""
        status: Any = "ok"
        with anyio.CancelScope() as scope:
            self._interrupts[request.context_id] = scope
            for line in request.code.splitlines():
                verb, _, rest = line.partition(" ")
                status = await _do(verb, rest, on_event) or status
        self._interrupts.pop(request.context_id, None)
        if scope.cancelled_caught:
            status = "interrupted"
        return CodeEnd(status=status, execution_count=1, state_lost=status == "lost")

    @asynccontextmanager
    async def open_process(self, spec: ProcessSpec) -> AsyncIterator[_Process]:
        """As `Guest.open_process`."""
        process = _Process(100 + len(self._processes), spec)
        self._processes[process.pid] = process
        yield process

    @asynccontextmanager
    async def attach_process(self, pid: int, *, offset: int = 0) -> AsyncIterator[_Process]:
        """As `Guest.attach_process`."""
        process = self._process(pid)
        process.offset = min(offset, len(process.output))
        yield process

    async def list_processes(self) -> list[ProcessInfo]:
        """As `Guest.list_processes`."""
        return [
            ProcessInfo(
                pid=process.pid,
                command=process.spec.shell or " ".join(process.spec.argv or ()),
                cwd=process.spec.cwd,
                running=not process.ended,
                pty=process.spec.pty is not None,
                keep=process.spec.keep,
                started_at=0.0,
                output_bytes=len(process.output),
            )
            for process in self._processes.values()
        ]

    async def signal_process(self, pid: int, signal: str) -> None:
        """As `Guest.signal_process`."""
        await self._process(pid).signal(signal)

    async def write_stdin(self, pid: int, data: bytes, *, end: bool = False) -> None:
        """As `Guest.write_stdin`."""
        await self._process(pid).send_stdin(data)
        if end:
            await self._process(pid).close_stdin()

    async def resize_process(self, pid: int, cols: int, rows: int) -> None:
        """As `Guest.resize_process`."""
        await self._process(pid).resize(cols, rows)

    @asynccontextmanager
    async def open_port(self, port: int) -> AsyncIterator[_Echo]:
        """As `Guest.open_port`."""
        if port != 7:
            raise UnsupportedError(f"nothing listens on port {port}")
        echo = _Echo()
        try:
            yield echo
        finally:
            echo.close()

    async def metrics(self) -> Metrics:
        """As `Guest.metrics`."""
        return Metrics(cpus=1, processes=len(self._processes))

    def _process(self, pid: int) -> _Process:
        if pid not in self._processes:
            raise NotFoundError(f"there is no process {pid}", field="pid")
        return self._processes[pid]


async def _do(verb: str, rest: str, on_event: Callable[[CodeEvent], Awaitable[None]]) -> str | None:
    if verb in {"out", "err"}:
        data = rest.encode("utf-8", "surrogatepass")
        await on_event(CodeOutput(stream="stdout" if verb == "out" else "stderr", data=data))
    elif verb == "tiny":
        for _ in range(int(rest)):
            await on_event(CodeOutput(stream="stdout", data=b"."))
    elif verb == "result":
        await on_event(CodeResult(data={"text/plain": rest}, is_main_result=True))
    elif verb == "raise":
        await on_event(CodeError(name=rest, value="as told"))
        return "error"
    elif verb == "sleep":
        await anyio.sleep(float(rest))
    elif verb == "hang":
        await anyio.sleep_forever()
    elif verb == "drop":
        raise AgentLostError("the agent closed the connection")
    return "lost" if verb == "lose" else None


def _whole(path: str) -> str:
    return (path if path.startswith("/") else f"{_HOME}/{path}").rstrip("/") or "/"


async def _pieces(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), _PIECE_BYTES):
        yield content[start : start + _PIECE_BYTES]


async def _one(event: FileEvent) -> AsyncIterator[FileEvent]:
    yield event
