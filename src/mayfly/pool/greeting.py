"""Making a machine its own before any user's code runs in it: fresh entropy, the time, names. And warming it up."""

from __future__ import annotations

import os
import secrets
import time
from typing import TYPE_CHECKING

import anyio

from mayfly.errors import AgentLostError, VmmExitedError
from mayfly.guest.asking import ask
from mayfly.guest.calls import greet
from mayfly.guest.link import open_link
from mayfly.host.tasks import single_error

if TYPE_CHECKING:
    from mayfly.vmm.launcher import Machine

__all__ = ["greet_machine", "warm_machine"]

_DEADLINE_S = 15.0
_WARMING_DEADLINE_S = 60.0
"""It takes two to five seconds of an emulated processor, and gives way to what runs meanwhile."""
_PAUSE_S = 0.01
_ENTROPY_BYTES = 64


async def greet_machine(machine: Machine, *, deadline_s: float = _DEADLINE_S) -> None:
    """Greet the agent. GuestError when it could not do all of it: the machine must not be used then.

    A guest just restored resets the connections that it finds, also one that was accepted a moment ago; a greeting
    may be said twice, so it is tried again for `deadline_s`. VmmExitedError as soon as the machine has ended.
    """
    with single_error():
        async with anyio.create_task_group() as group:
            group.start_soon(_fail_at_exit, machine)
            await _greet(machine, deadline_s)
            group.cancel_scope.cancel()


async def warm_machine(machine: Machine, *, deadline_s: float = _WARMING_DEADLINE_S) -> None:
    """Let the guest touch the memory that a program's start will need. MayflyError; cancelling ends it in the guest."""
    async with open_link(machine.vsock_path, deadline_s=deadline_s) as link:
        await ask(link, "warm", {}, deadline_s=deadline_s)


async def _fail_at_exit(machine: Machine) -> None:
    await machine.exited.wait()
    raise VmmExitedError(f"the microVM ended while it was greeted: {machine.last_words() or 'it said nothing'}")


async def _greet(machine: Machine, deadline_s: float) -> None:
    until = anyio.current_time() + deadline_s
    while True:
        try:
            await _greet_once(machine, until - anyio.current_time())
        except AgentLostError:
            await anyio.sleep(_PAUSE_S)
            if anyio.current_time() >= until:
                raise
        else:
            return


async def _greet_once(machine: Machine, deadline_s: float) -> None:
    async with open_link(machine.vsock_path, deadline_s=deadline_s) as link:
        await greet(
            link,
            entropy=os.urandom(_ENTROPY_BYTES),
            unix_ns=time.time_ns(),
            hostname=machine.id,
            machine_id=secrets.token_hex(16),
        )
