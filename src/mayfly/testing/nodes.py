"""A node without machines, for tests of what speaks HTTP: the "programs" are scripts of a few verbs."""

from __future__ import annotations

import contextlib
from base64 import b64encode
from typing import TYPE_CHECKING, Any, get_args

import anyio
import msgspec

from mayfly.errors import NotFoundError, error_from_code
from mayfly.host.eventloop import open_portal
from mayfly.model import (
    Accepted,
    Execution,
    ExecutionId,
    Finding,
    Finished,
    HostInfo,
    Output,
    Stage,
    StageDone,
    Status,
    Usage,
    Verdict,
)
from mayfly.server.app import create_app
from mayfly.server.run import serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

    from mayfly.model import Event, ExecutionRequest
    from mayfly.node.templates import TemplateRequest
    from mayfly.server.run import Bound

__all__ = ["ScriptedNode", "ScriptedTemplates", "open_server", "serve_in_thread"]

_FLOOD_CHARS = 32 * 1024
_EXIT_CODES: dict[str, int] = {
    "timeout": 124,
    "cpu_limit": 124,
    "error": 125,
    "agent_lost": 125,
    "denied": 126,
    "oom": 137,
}


class ScriptedTemplates:
    """Templates that are rows of a list."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    async def list(self) -> list[dict[str, Any]]:
        """As `mayfly.node.templates.NodeTemplates.list`."""
        return self.rows

    async def build(self, request: TemplateRequest) -> dict[str, Any]:
        """As `mayfly.node.templates.NodeTemplates.build`, at once."""
        shape = msgspec.to_builtins(request)
        times = {"created": "2026-01-01T00:00:00Z", "last_used": 1767225600.0}
        row = {"key": f"{len(self.rows):032x}", **shape, "bytes": 9, "disk_bytes": 9, **times}
        self.rows.append({**row, "current": True, "waiting": 0})
        return self.rows[-1]

    async def remove(self, key: str) -> dict[str, Any]:
        """As `mayfly.node.templates.NodeTemplates.remove`."""
        for row in self.rows:
            if row["key"].startswith(key):
                self.rows.remove(row)
                return row
        raise NotFoundError("no such template", field="key")


class ScriptedNode:
    """Does what `code` says, a verb a line, and remembers what it was asked.

    `out TEXT` and `err TEXT` write a line, `hex BYTES` writes raw bytes, `flood N` writes N pieces of 32 KiB, `echo`
    copies standard input to standard output, `args` and `env` print what came with the request, `sleep SECONDS`,
    `exit N` and `status NAME` end. `refuse CODE` raises before acceptance, `fail CODE` and `crash` after. Other lines
    do nothing.
    """

    def __init__(self, *, api: int = 1, code_hash: str = "scripted") -> None:
        self.api = api
        self.code_hash = code_hash
        self.requests: list[ExecutionRequest] = []
        self.cancelled: list[ExecutionId] = []
        self.written_events = 0
        self._templates = ScriptedTemplates()
        self.sandboxes: None = None
        self._finished: dict[ExecutionId, Execution] = {}
        self._inputs: dict[ExecutionId, MemoryObjectSendStream[bytes]] = {}

    async def execute(
        self, request: ExecutionRequest, *, on_event: Callable[[Event], Awaitable[None]] | None = None
    ) -> Execution:
        """As `mayfly.node.service.Node.execute`."""
        self.requests.append(request)
        for line in request.code.splitlines():
            if line.startswith("refuse "):
                raise error_from_code(line.split()[1], "refused by the script", retry_after_s=2.5)
        run = _Run(self, ExecutionId(f"ex-{len(self.requests)}"), request, on_event)
        sending, receiving = anyio.create_memory_object_stream[bytes](1)
        self._inputs[run.id] = sending
        try:
            with sending, receiving:
                await run.send(Accepted(id=run.id))
                execution = await run.run(receiving)
        except anyio.get_cancelled_exc_class():
            self.cancelled.append(run.id)
            raise
        finally:
            self._inputs.pop(run.id, None)
        self._finished[run.id] = execution
        await run.send(Finished(execution=execution))
        return execution

    async def feed_stdin(self, execution_id: ExecutionId, data: bytes, *, eof: bool) -> None:
        """As `mayfly.node.service.Node.feed_stdin`."""
        if execution_id not in self._inputs:
            raise NotFoundError("not running", field="id")
        stream = self._inputs[execution_id]
        try:
            if data:
                await stream.send(data)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            raise NotFoundError("ended", field="id") from None
        if eof:
            stream.close()

    def find(self, execution_id: ExecutionId) -> Execution:
        """As `mayfly.node.service.Node.find`."""
        if execution_id not in self._finished:
            raise NotFoundError("no such execution", field="id")
        return self._finished[execution_id]

    def pool(self) -> dict[str, Any]:
        """Nothing waits."""
        return {"sizes": [], "budget": {}, "warnings": []}

    @property
    def templates(self) -> ScriptedTemplates:
        """As `mayfly.node.service.Node.templates`."""
        return self._templates

    def host(self) -> dict[str, Any]:
        """As `mayfly.node.service.Node.host`; the kind is `fake`."""
        return {
            "kind": "fake",
            "firecracker": "none",
            "kernel": "",
            "image": "",
            "warnings": ["nothing is run"],
            "version": "0.1.0",
            "code_hash": self.code_hash,
            "running": len(self._inputs),
            "limits": {"mem_mib": 1024, "vcpus": 2},
        }

    def health(self) -> dict[str, Any]:
        """As `mayfly.node.service.Node.health`."""
        return {
            "status": "ok",
            "version": "0.1.0",
            "api": self.api,
            "code_hash": self.code_hash,
            "running": len(self._inputs),
        }


class _Run:
    def __init__(
        self,
        node: ScriptedNode,
        execution_id: ExecutionId,
        request: ExecutionRequest,
        on_event: Callable[[Event], Awaitable[None]] | None,
    ) -> None:
        self.id = execution_id
        self._node = node
        self._request = request
        self._on_event = on_event
        self._written = {"stdout": bytearray(), "stderr": bytearray()}

    async def send(self, event: Event) -> None:
        if self._on_event is not None:
            await self._on_event(event)
            self._node.written_events += 1

    async def run(self, stdin: MemoryObjectReceiveStream[bytes]) -> Execution:
        await self.send(StageDone(name="scan", ms=0.5))
        status: str = "succeeded"
        exit_code: int | None = None
        for line in self._request.code.splitlines():
            verb, _, rest = line.partition(" ")
            if verb == "exit":
                exit_code = int(rest)
                status = "failed" if exit_code else "succeeded"
                break
            if verb == "status" and rest in get_args(Status):
                status = rest
                break
            await self._do(verb, rest, stdin)
        return self._result(status, _EXIT_CODES.get(status, 0) if exit_code is None else exit_code)

    async def _do(self, verb: str, rest: str, stdin: MemoryObjectReceiveStream[bytes]) -> None:
        if verb in {"out", "err"}:
            await self._write("stdout" if verb == "out" else "stderr", f"{rest}\n".encode())
        elif verb == "echo":
            async for chunk in self._input(stdin):
                await self._write("stdout", chunk)
        elif verb == "flood":
            for _ in range(int(rest)):
                await self._write("stdout", b"x" * _FLOOD_CHARS)
        elif verb == "sleep":
            await anyio.sleep(float(rest))
        elif verb == "fail":
            raise error_from_code(rest, "failed by the script")
        elif verb == "crash":
            raise RuntimeError("crashed by the script")
        elif data := self._told(verb, rest):
            await self._write("stdout", data)

    def _told(self, verb: str, rest: str) -> bytes:
        if verb == "hex":
            return bytes.fromhex(rest)
        shown = {"args": " ".join(self._request.args), "env": repr(sorted(self._request.env.items()))}
        return f"{shown[verb]}\n".encode() if verb in shown else b""

    async def _input(self, stdin: MemoryObjectReceiveStream[bytes]) -> AsyncIterator[bytes]:
        if self._request.stdin is not None:
            yield self._request.stdin.encode()
        elif self._request.stdin_stream:
            async for chunk in stdin:
                yield chunk

    async def _write(self, stream: Any, data: bytes) -> None:
        self._written[stream] += data
        try:
            await self.send(Output(stream=stream, text=data.decode()))
        except UnicodeDecodeError:
            await self.send(Output(stream=stream, base64=b64encode(data).decode()))

    def _result(self, status: Any, exit_code: int) -> Execution:
        finding = Finding(rule="MF-TEST", severity="high", message="the script says so", line=1, column=0)
        return Execution(
            id=self.id,
            status=status,
            exit_code=exit_code,
            stdout=self._written["stdout"].decode("utf-8", "replace"),
            stderr=self._written["stderr"].decode("utf-8", "replace"),
            scan=Verdict(verdict="deny" if status == "denied" else "allow", findings=(finding,)),
            stages=(Stage("scan", 0.5), Stage("execute", 1500.0)),
            usage=Usage(stdout_bytes=len(self._written["stdout"])),
            host=HostInfo(kind="fake", firecracker="none"),
            lang=self._request.lang,
            created_at="2026-01-01T00:00:00.000Z",
        )


@contextlib.asynccontextmanager
async def open_server(
    node: Any, *, unix_socket: Path | None = None, tcp: bool = False, token: str | None = None
) -> AsyncIterator[Bound]:
    """Serve `node` with the real application and server while the block runs."""
    ready = anyio.Event()
    bounds: list[Bound] = []

    def on_ready(bound: Bound) -> None:
        bounds.append(bound)
        ready.set()

    async with anyio.create_task_group() as tasks:

        async def work() -> None:
            address = ("127.0.0.1", 0) if tcp else None
            await serve(create_app(node, token=token), unix_socket=unix_socket, tcp=address, on_ready=on_ready)

        tasks.start_soon(work)
        await ready.wait()
        yield bounds[0]
        tasks.cancel_scope.cancel()


@contextlib.contextmanager
def serve_in_thread(
    node: Any, *, unix_socket: Path | None = None, tcp: bool = False, token: str | None = None
) -> Iterator[Bound]:
    """`open_server` for blocking tests, in a thread of its own."""
    with (
        open_portal() as portal,
        portal.wrap_async_context_manager(open_server(node, unix_socket=unix_socket, tcp=tcp, token=token)) as bound,
    ):
        yield bound
