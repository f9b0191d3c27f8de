"""A guest for tests: the real agent as a process of this host, asked over the host's own link."""

from __future__ import annotations

import sysconfig
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import msgspec

from mayfly.guest.sandbox import Guest
from mayfly.guest.shapes import CodeEnd, CodeOutput, CodeRequest
from mayfly.sandbox_model import CodeError, CodeResult
from mayfly.testing.launcher import FakeLauncher
from mayfly.vmm.launcher import MachineSpec

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from typing import Any

    from mayfly.guest.shapes import CodeEvent

__all__ = ["Cell", "libraries_path", "open_guest", "run_cell"]


class Cell(msgspec.Struct, frozen=True):
    """A run of code and all that came of it."""

    events: tuple[CodeEvent, ...]
    end: CodeEnd

    def printed(self, stream: str = "stdout") -> str:
        """All of one stream."""
        pieces = [event.data for event in self.events if isinstance(event, CodeOutput) and event.stream == stream]
        return b"".join(pieces).decode()

    @property
    def results(self) -> list[CodeResult]:
        """In order."""
        return [event for event in self.events if isinstance(event, CodeResult)]

    @property
    def error(self) -> CodeError | None:
        """What it raised."""
        return next((event for event in self.events if isinstance(event, CodeError)), None)

    @property
    def text(self) -> str | None:
        """The last expression's value."""
        return next((result.data["text/plain"] for result in self.results if result.is_main_result), None)


async def run_cell(guest: Guest, code: str, *, context: str = "default", nonce: str = "n", **options: Any) -> Cell:
    """Runs code in a context to its end; `options` are those of `CodeRequest`."""
    events: list[CodeEvent] = []

    async def on_event(event: CodeEvent) -> None:
        events.append(event)

    request = CodeRequest(context_id=context, code=code, nonce=nonce, **options)
    end = await guest.run_code(request, on_event=on_event)
    return Cell(tuple(events), end)


@asynccontextmanager
async def open_guest(*, mem_mib: int = 256) -> AsyncIterator[Guest]:
    """An agent, and what asks it; all of it ends with the block."""
    async with anyio.create_task_group() as group:
        machine = await FakeLauncher(group).launch(MachineSpec(id="guest", mem_mib=mem_mib))
        try:
            yield Guest(machine.vsock_path)
        finally:
            with anyio.CancelScope(shield=True):
                await machine.destroy()
        group.cancel_scope.cancel()


def libraries_path() -> str | None:
    """Where IPython and the data libraries are that the interpreter of such a guest can load; None without them."""
    found = Path(sysconfig.get_path("platlib"))
    version = sysconfig.get_python_version()
    system = Path("/usr/bin/python3").resolve().name
    return str(found) if (found / "IPython").is_dir() and system in {f"python{version}", "python3"} else None
