"""What the host asks of the agent in a sandbox that keeps state: one link an operation, every answer checked.

All of it raises AgentLostError when the agent does not answer, ProtocolError when it breaks the protocol, and what
the guest refuses as the typed errors of `mayfly.errors`: NotFoundError (no such context or process), BusyError,
UnsupportedError, InvalidRequestError, FileMissingError, FilePresentError, FileDeniedError, NoSpaceError and
FileSystemError.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec

from mayfly.errors import ProtocolError
from mayfly.guest.asking import convert
from mayfly.guest.contexts import CodeRunLink
from mayfly.guest.files import GuestFiles
from mayfly.guest.ports import connect_port
from mayfly.guest.processes import follow, process_info, send_input, spec_args
from mayfly.guest.spare import SpareLink
from mayfly.sandbox_model import CodeLanguage, ContextId, ContextInfo, Metrics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from pathlib import Path

    from mayfly.guest.ports import PortLink
    from mayfly.guest.processes import ProcessLink
    from mayfly.guest.shapes import CodeEnd, CodeEvent, CodeRequest, ProcessInfo, ProcessSpec

__all__ = ["Guest"]

_Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
_Amount = Annotated[float, msgspec.Meta(ge=0, le=1e18)]
_Path = Annotated[str, msgspec.Meta(max_length=8192)]
_Shape = TypeVar("_Shape")


class _ContextShape(msgspec.Struct, frozen=True, kw_only=True):
    id: Annotated[str, msgspec.Meta(max_length=64)]
    lang: CodeLanguage
    cwd: _Path
    busy: bool
    execution_count: _Count


class _InterruptedShape(msgspec.Struct, frozen=True, kw_only=True):
    interrupted: bool


class _MetricsShape(msgspec.Struct, frozen=True, kw_only=True):
    cpus: _Count
    cpu_ms: _Amount
    load_1m: _Amount
    mem_total_bytes: _Count
    mem_used_bytes: _Count
    disk_total_bytes: _Count
    disk_used_bytes: _Count
    processes: _Count
    uptime_s: _Amount

    def metrics(self) -> Metrics:
        """The same as a value of the model."""
        return msgspec.convert(msgspec.to_builtins(self), Metrics)


def _item(item: dict[str, Any], shape: type[_Shape]) -> _Shape:
    try:
        return msgspec.convert(item, shape)
    except msgspec.ValidationError as error:
        raise ProtocolError(f"the agent sent a bad item: {error}") from None


def _context(shape: _ContextShape) -> ContextInfo:
    return ContextInfo(
        id=ContextId(shape.id),
        lang=shape.lang,
        cwd=shape.cwd,
        busy=shape.busy,
        execution_count=shape.execution_count,
    )


class Guest(GuestFiles):
    """The agent behind `vsock_path`. Keeps nothing open between two calls, but what `spare` was told to."""

    def __init__(self, vsock_path: Path, *, connect_deadline_s: float = 15.0) -> None:
        super().__init__(vsock_path, connect_deadline_s=connect_deadline_s)
        self.spare = SpareLink(vsock_path, deadline_s=connect_deadline_s)
        """For runs of code; whoever prepares it closes it at the end."""

    # -- contexts ------------------------------------------------------------------------------------------

    async def create_context(
        self,
        context_id: str,
        *,
        lang: CodeLanguage,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        pids: int = 1024,
        deadline_s: float = 90.0,
    ) -> ContextInfo:
        """Starts an interpreter and waits until it is ready. FilePresentError when there is one of that id."""
        args = {"context": context_id, "lang": lang, "cwd": cwd, "env": dict(env or {}), "pids": pids}
        answer, _ = await self._ask("context_create", args, deadline_s=deadline_s)
        return _context(convert(answer, _ContextShape))

    async def list_contexts(self) -> list[ContextInfo]:
        """All of them."""
        _, items = await self._ask("context_list", {})
        return [_context(_item(item, _ContextShape)) for item in items]

    async def restart_context(self, context_id: str, *, deadline_s: float = 90.0) -> None:
        """Ends the interpreter, and what runs in it (as `lost`), and starts it empty."""
        await self._ask("context_restart", {"context": context_id}, deadline_s=deadline_s)

    async def remove_context(self, context_id: str) -> None:
        """Ends the interpreter, and what runs in it (as `lost`), for good."""
        await self._ask("context_remove", {"context": context_id})

    async def interrupt_context(self, context_id: str, *, nonce: str | None = None) -> bool:
        """SIGINT to what runs in it; says whether anything did. `nonce` limits it to that run, waiting ones too."""
        answer, _ = await self._ask("context_interrupt", {"context": context_id, "nonce": nonce})
        return convert(answer, _InterruptedShape).interrupted

    async def run_code(self, request: CodeRequest, *, on_event: Callable[[CodeEvent], Awaitable[None]]) -> CodeEnd:
        """Runs code to its end. `on_event` slows it. Runs of one context take turns, in order; 16 may wait.

        When this is cancelled the code is interrupted, as by `interrupt_context`.
        """
        async with self.spare.open() as link:
            return await CodeRunLink(link, request, on_event).to_end()

    # -- processes -----------------------------------------------------------------------------------------

    @asynccontextmanager
    async def open_process(self, spec: ProcessSpec) -> AsyncIterator[ProcessLink]:
        """Starts a process and follows it; leaving the block ends it unless `spec.keep`."""
        async with self._link() as link, follow(link, "process_start", spec_args(spec)) as process:
            yield process

    @asynccontextmanager
    async def attach_process(self, pid: int, *, offset: int = 0) -> AsyncIterator[ProcessLink]:
        """Follows a kept process from `offset` of its output on. The newest to attach has its input too."""
        async with self._link() as link, follow(link, "process_attach", {"pid": pid, "offset": offset}) as process:
            yield process

    async def list_processes(self) -> list[ProcessInfo]:
        """Those that were started by `open_process`, the oldest first."""
        _, items = await self._ask("process_list", {})
        return [process_info(item) for item in items]

    async def signal_process(self, pid: int, signal: str) -> None:
        """Sends `SIGTERM`, and so on, to the process group; SIGKILL to everything that it started."""
        await self._ask("process_signal", {"pid": pid, "signal": signal})

    async def write_stdin(self, pid: int, data: bytes, *, end: bool = False) -> None:
        """Input for a kept process without following it; `end` closes it after."""
        async with self._link() as link:
            await send_input(link, pid, data, end=end)

    async def resize_process(self, pid: int, cols: int, rows: int) -> None:
        """The new size of its terminal."""
        await self._ask("process_resize", {"pid": pid, "cols": cols, "rows": rows})

    # -- the rest ------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def open_port(self, port: int) -> AsyncIterator[PortLink]:
        """A connection to `port` of the guest's loopback: `send`, `send_eof`, `receive` (b"" at the end).

        Raises UnsupportedError when nobody listens there.
        """
        async with self._link() as link, connect_port(link, port) as connection:
            yield connection

    async def metrics(self) -> Metrics:
        """What the sandbox uses now."""
        answer, _ = await self._ask("metrics", {})
        return convert(answer, _MetricsShape).metrics()
