"""The greeting of a machine whose connections are reset, as those of a guest just restored are."""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio
import pytest

from mayfly.errors import AgentLostError, GuestError, VmmExitedError, VmmTimeoutError
from mayfly.guest.frames import FROM_HOST, FrameDecoder, FrameType, encode
from mayfly.pool.greeting import greet_machine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from anyio.abc import SocketStream


@dataclass
class Restored:
    """The part of a machine that a greeting needs; the guest resets its first connections after accepting them."""

    vsock_path: Path
    resets: int
    answer: bytes = encode(FrameType.GREETED, {})
    id: str = "vm-1"
    exited: anyio.Event = field(default_factory=anyio.Event)
    connections: int = 0

    def last_words(self) -> str:
        return ""

    async def serve(self, stream: SocketStream) -> None:
        async with stream:
            self.connections += 1
            with suppress(anyio.EndOfStream, anyio.BrokenResourceError):  # whoever greets may leave at any time
                await self._say(stream)

    async def _say(self, stream: SocketStream) -> None:
        await stream.receive(64)
        await stream.send(b"OK 1024\n")
        if self.connections <= self.resets:
            return
        decoder = FrameDecoder(FROM_HOST)
        while not decoder.feed(await stream.receive(4096)):
            pass
        await stream.send(self.answer)


@asynccontextmanager
async def restored(path: Path, resets: int, **changes: bytes) -> AsyncIterator[Restored]:
    async with await anyio.create_unix_listener(path) as listener, anyio.create_task_group() as tasks:
        machine = Restored(path, resets, **changes)
        tasks.start_soon(listener.serve, machine.serve)
        yield machine
        tasks.cancel_scope.cancel()


def test_a_connection_that_was_accepted_and_then_reset_is_tried_again(tmp_path: Path) -> None:
    async def greets() -> int:
        async with restored(tmp_path / "v", resets=3) as machine:
            await greet_machine(machine)
            return machine.connections

    assert anyio.run(greets) == 4


def test_a_machine_that_never_answers_is_lost_at_the_deadline(tmp_path: Path) -> None:
    async def greets() -> None:
        async with restored(tmp_path / "v", resets=10**6) as machine:
            with pytest.raises((AgentLostError, VmmTimeoutError)):
                await greet_machine(machine, deadline_s=0.1)

    anyio.run(greets)


def test_a_machine_that_has_ended_is_not_waited_for(tmp_path: Path) -> None:
    async def greets() -> int:
        async with restored(tmp_path / "v", resets=10**6) as machine:
            machine.exited.set()
            with pytest.raises(VmmExitedError), anyio.fail_after(5):
                await greet_machine(machine)
            return machine.connections

    assert anyio.run(greets) <= 1


def test_a_refusal_is_final(tmp_path: Path) -> None:
    async def greets() -> int:
        refusal = encode(FrameType.ERROR, {"code": "greet_failed", "message": "no clock"})
        async with restored(tmp_path / "v", resets=0, answer=refusal) as machine:
            with pytest.raises(GuestError, match="no clock"):
                await greet_machine(machine)
            return machine.connections

    assert anyio.run(greets) == 1
