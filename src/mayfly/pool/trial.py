"""A clone of a new template lives once through what every clone does, to see which memory that takes."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from mayfly.guest.calls import execute
from mayfly.guest.link import open_link
from mayfly.model import ExecutionRequest, Limits
from mayfly.pool.greeting import greet_machine

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Literal

    from mayfly.vmm.machine import FirecrackerMachine
    from mayfly.vmm.workingset import Runs

__all__ = ["try_clone"]

_DEADLINE_S = 60.0
_PROGRAM = "print(1)\n"


async def try_clone(machine: FirecrackerMachine, memory: Path) -> Runs:
    """Resume, greet and run the smallest program; then, the working set of that. `memory`: the file it was loaded from.

    MayflyError or OSError. The machine is used up; the caller destroys it.
    """
    await machine.resume()
    await greet_machine(machine)
    request = ExecutionRequest(code=_PROGRAM, limits=Limits(timeout_s=_DEADLINE_S, mem_mib=machine.spec.mem_mib))
    async with open_link(machine.vsock_path, deadline_s=_DEADLINE_S) as link:
        await execute(link, request, nonce=secrets.token_hex(16), mem_bytes=None, stdin=None, on_output=_ignore)
    return await machine.find_working_set(memory)


async def _ignore(_: Literal["stdout", "stderr"], __: bytes) -> None:
    return
