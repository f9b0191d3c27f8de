"""The node: takes execution requests, runs each in a machine of its own, remembers the results."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Any

import anyio
import structlog

from mayfly.errors import CapacityError, InvalidRequestError, NotFoundError
from mayfly.model import CODE_MAX_BYTES, Accepted, Execution, ExecutionId, Finished, image_for
from mayfly.node.admission import STOPPED_RETRY_S
from mayfly.node.pipeline import Run

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable

    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

    from mayfly.model import Event, ExecutionRequest, HostInfo, HostKind
    from mayfly.node.admission import Admission
    from mayfly.node.gate import Gate
    from mayfly.node.sandboxes import Sandboxes
    from mayfly.node.store import ExecutionStore
    from mayfly.node.templates import NodeTemplates
    from mayfly.vmm.launcher import Launcher, Machine, MachineSpec

__all__ = ["API_VERSION", "Node"]

_log = structlog.get_logger("mayfly.node")

API_VERSION = 1
_STDIN_CHUNKS = 16
_STDIN_CHUNK_BYTES = 64 * 1024
_LAUNCH_AFTER_STOP_S = 2.0
"""So long a launch that is under way when the node stops may still take."""


class Node:
    """One machine's service.

    `gate` scans and decides, `code_hash` names the running code, `census` counts what there is of
    machines, `templates` are those that machines are cloned from.
    """

    def __init__(
        self,
        launcher: Launcher,
        gate: Gate,
        store: ExecutionStore,
        admission: Admission,
        *,
        version: str,
        code_hash: str = "",
        census: Callable[[], dict[str, Any]] = dict,
        templates: NodeTemplates | None = None,
    ) -> None:
        self.sandboxes: Sandboxes | None = None
        """Those that keep state; None where none are made."""
        self._launcher = _StoppableLauncher(launcher)
        self._gate = gate
        self._store = store
        self._admission = admission
        self._version = version
        self._code_hash = code_hash
        self._census = census
        self._templates = templates
        self._stdin: dict[ExecutionId, MemoryObjectSendStream[bytes]] = {}
        self._inputs: dict[ExecutionId, MemoryObjectReceiveStream[bytes]] = {}
        self._draining = False
        self._last_active = time.monotonic()

    @property
    def last_active(self) -> float:
        """When something was last asked of it, or ended, by `time.monotonic`."""
        return max(self._last_active, self.sandboxes.last_active if self.sandboxes else 0.0)

    @property
    def running(self) -> int:
        """Executions and sandboxes that hold a machine now."""
        return self._admission.running

    async def execute(
        self, request: ExecutionRequest, *, on_event: Callable[[Event], Awaitable[None]] | None = None
    ) -> Execution:
        """Run a program and return its result; what the program does wrong is in the result, never raised.

        InvalidRequestError and CapacityError come before the `accepted` event. Cancelling destroys the machine.
        """
        self._check(request)
        self._last_active = time.monotonic()
        execution_id = ExecutionId(f"ex-{secrets.token_hex(10)}")
        try:
            async with self._admission.slot(request.limits, image=image_for(request.lang, request.image)):
                stdin = self._open_stdin(execution_id, request)
                if on_event is not None:
                    await on_event(Accepted(id=execution_id))
                run = Run(execution_id, request, on_event=on_event, stdin=stdin)
                execution = await run.run(self._gate.pass_through, self._launcher)
        finally:
            self._close_stdin(execution_id)
            # The program's end of it, which nobody has read where the program never started.
            if (unread := self._inputs.pop(execution_id, None)) is not None:
                unread.close()
            self._last_active = time.monotonic()
        self._store.put(execution)
        _log.info(
            "execution", id=execution.id, status=execution.status, ms={s.name: round(s.ms) for s in execution.stages}
        )
        if on_event is not None:
            await on_event(Finished(execution=execution))
        return execution

    async def feed_stdin(self, execution_id: ExecutionId, data: bytes, *, eof: bool) -> None:
        """Give a running program input; waits while the program does not read. NotFoundError when it takes none."""
        stream = self._stdin.get(execution_id)
        if stream is None:
            raise NotFoundError(f"no running execution {execution_id} takes standard input", field="id")
        try:
            for start in range(0, len(data), _STDIN_CHUNK_BYTES):
                await stream.send(data[start : start + _STDIN_CHUNK_BYTES])
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            raise NotFoundError(f"execution {execution_id} has ended", field="id") from None
        if eof:
            self._close_stdin(execution_id)

    def find(self, execution_id: ExecutionId) -> Execution:
        """The recorded result. NotFoundError when there is none (still running, never known, or pruned)."""
        execution = self._store.get(execution_id)
        if execution is None:
            raise NotFoundError(f"no execution {execution_id!r} is recorded here", field="id")
        return execution

    def host(self) -> dict[str, Any]:
        """What `GET /v1/host` says."""
        info = self._launcher.describe()
        return {
            "kind": info.kind,
            "firecracker": info.firecracker,
            "kernel": info.kernel,
            "image": info.image,
            "images": list(self._gate.images),
            "warnings": list(info.warnings),
            "version": self._version,
            "code_hash": self._code_hash,
            "running": self.running,
            "sandboxes": self.sandboxes.count if self.sandboxes else 0,
            "limits": {"mem_mib": self._admission.mem_mib, "vcpus": self._admission.vcpus},
            "census": self._census(),
        }

    def pool(self) -> dict[str, Any]:
        """What `GET /v1/pool` says: the clones that wait, by size, and what the node's machines take."""
        return {"sizes": [], "budget": {}, "warnings": []} if self._templates is None else self._templates.pool()

    @property
    def templates(self) -> NodeTemplates:
        """The templates that its clones come from. NotFoundError where machines do not come from templates."""
        if self._templates is None:
            raise NotFoundError("this node's machines do not come from templates")
        return self._templates

    def health(self) -> dict[str, Any]:
        """What `GET /healthz` says."""
        return {
            "status": "draining" if self._draining else "ok",
            "version": self._version,
            "api": API_VERSION,
            "code_hash": self._code_hash,
            "running": self.running,
        }

    def drain(self) -> None:
        """Take no new executions, give up those whose program is far from its start, and end the sandboxes."""
        self._draining = True
        self._admission.refuse_waiting()
        self._launcher.stop(_LAUNCH_AFTER_STOP_S)
        if self.sandboxes is not None:
            self.sandboxes.stop("the node was stopped")

    def _check(self, request: ExecutionRequest) -> None:
        if self._draining:
            raise _stopping()
        size = len(request.code.encode("utf-8", "surrogatepass"))
        if size > CODE_MAX_BYTES:
            raise InvalidRequestError(f"code is {size} bytes long, at most {CODE_MAX_BYTES} are taken", field="code")
        self._admission.check(request.limits)
        self._gate.policy(request.policy)
        self._gate.manifest(image_for(request.lang, request.image))

    def _open_stdin(self, execution_id: ExecutionId, request: ExecutionRequest) -> AsyncIterable[bytes] | None:
        if request.stdin is not None:
            return _once(request.stdin.encode("utf-8", "surrogatepass"))
        if not request.stdin_stream:
            return None
        sending: MemoryObjectSendStream[bytes]
        receiving: MemoryObjectReceiveStream[bytes]
        sending, receiving = anyio.create_memory_object_stream[bytes](_STDIN_CHUNKS)
        self._stdin[execution_id] = sending
        self._inputs[execution_id] = receiving
        return _closing(receiving)

    def _close_stdin(self, execution_id: ExecutionId) -> None:
        stream = self._stdin.pop(execution_id, None)
        if stream is not None:
            stream.close()


class _StoppableLauncher:
    """A `Launcher` whose launches are given up when the node stops: programs that run get the time that is left."""

    def __init__(self, launcher: Launcher) -> None:
        self.kind: HostKind = launcher.kind
        self._launcher = launcher
        self._scopes: set[anyio.CancelScope] = set()
        self._until = float("inf")

    async def launch(self, spec: MachineSpec) -> Machine:
        """See `Launcher.launch`. CapacityError when the node has stopped for too long."""
        with anyio.CancelScope(deadline=self._until) as scope:
            self._scopes.add(scope)
            try:
                return await self._launcher.launch(spec)
            finally:
                self._scopes.discard(scope)
        raise _stopping()

    def describe(self, image: str = "python") -> HostInfo:
        """See `Launcher.describe`."""
        return self._launcher.describe(image)

    def stop(self, within_s: float) -> None:
        """Give up what is not done within that time."""
        self._until = min(self._until, anyio.current_time() + within_s)
        for scope in self._scopes:
            scope.deadline = self._until


def _stopping() -> CapacityError:
    return CapacityError("the node is shutting down", retry_after_s=STOPPED_RETRY_S)


async def _once(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), _STDIN_CHUNK_BYTES):
        yield data[start : start + _STDIN_CHUNK_BYTES]


async def _closing(stream: MemoryObjectReceiveStream[bytes]) -> AsyncIterator[bytes]:
    """The stream's items; it is closed when the reader stops, so that a waiting sender is told."""
    with stream:
        async for item in stream:
            yield item
