"""Unix sockets as streams: bytes both ways, ends, breaks, and tasks that wait on them."""

from __future__ import annotations

import gc
import os
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import pytest

from mayfly.host.sockets import connect_unix
from mayfly.host.unix_stream import UnixStream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def pair(directory: Path) -> AsyncIterator[tuple[UnixStream, socket.socket]]:
    """A connection; its other side is a plain socket that waits for nothing."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / "s"))
        listener.listen()
        ours = await connect_unix(directory / "s")
        theirs, _ = listener.accept()
        with theirs:
            theirs.setblocking(False)
            yield ours, theirs
        await ours.aclose()


async def test_bytes_pass_both_ways_however_many(tmp_path: Path) -> None:
    data = os.urandom(3 << 20)
    async with pair(tmp_path) as (ours, theirs):
        far = UnixStream(theirs)
        received = bytearray()

        async def read() -> None:
            while len(received) < len(data):
                received.extend(await far.receive())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            await ours.send(data)
        assert received == data
        await far.send(b"back")
        assert await ours.receive(2) + await ours.receive(2) == b"back"
        await ours.send_eof()
        with pytest.raises(anyio.EndOfStream):
            await far.receive()


async def test_both_ends_of_it_are_told_apart(tmp_path: Path) -> None:
    async with pair(tmp_path) as (ours, theirs):
        assert ours.is_quiet()
        theirs.send(b"x")
        assert not ours.is_quiet()
        assert await ours.receive() == b"x"
        assert ours.is_quiet()
        theirs.close()
        assert not ours.is_quiet()
        with pytest.raises(anyio.EndOfStream):
            await ours.receive()
        assert not ours.refused
        with pytest.raises(anyio.BrokenResourceError):
            await ours.send(b"to nobody")
        assert ours.refused


async def test_what_was_left_unread_is_known(tmp_path: Path) -> None:
    async with pair(tmp_path) as (ours, theirs):
        await ours.send(b"read")
        assert theirs.recv(10) == b"read"
        await ours.send(b"unread")
        theirs.close()
        with pytest.raises(anyio.BrokenResourceError):
            await ours.receive()
        assert ours.refused


async def test_closing_wakes_whoever_waits(tmp_path: Path) -> None:
    async with pair(tmp_path) as (ours, _):
        async with anyio.create_task_group() as tasks:

            async def wait() -> None:
                with pytest.raises(anyio.ClosedResourceError):
                    await ours.receive()

            tasks.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            await ours.aclose()
        await ours.aclose()
        with pytest.raises(anyio.ClosedResourceError):
            await ours.send(b"x")


async def test_a_cancelled_wait_loses_nothing(tmp_path: Path) -> None:
    async with pair(tmp_path) as (ours, theirs):
        with anyio.move_on_after(0.01):
            await ours.receive()
        theirs.send(b"later")
        with anyio.CancelScope() as scope:
            scope.cancel()
            await ours.receive()
        assert await ours.receive() == b"later"


async def test_a_wait_may_have_an_end_and_loses_nothing_by_it(tmp_path: Path) -> None:
    async with pair(tmp_path) as (ours, theirs):
        with pytest.raises(TimeoutError):
            await ours.receive(within_s=0.01)
        theirs.send(b"later")
        assert await ours.receive(within_s=60) == b"later"
        with pytest.raises(TimeoutError):
            await ours.send(bytes(8 << 20), within_s=0.01)


async def test_two_cannot_wait_for_the_same(tmp_path: Path) -> None:
    async with pair(tmp_path) as (ours, theirs), anyio.create_task_group() as tasks:
        tasks.start_soon(ours.receive)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(anyio.BusyResourceError):
            await ours.receive()
        theirs.send(b"for the first")


async def test_closing_wakes_whoever_waits_to_send(tmp_path: Path) -> None:
    async with pair(tmp_path) as (ours, _), anyio.create_task_group() as tasks:

        async def wait() -> None:
            with pytest.raises(anyio.ClosedResourceError):
                await ours.send(bytes(8 << 20))

        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        await ours.aclose()


async def test_a_flood_leaves_others_their_turns(tmp_path: Path) -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await anyio.lowlevel.checkpoint()
            turns += 1

    async with pair(tmp_path) as (ours, theirs), anyio.create_task_group() as tasks:
        tasks.start_soon(count)
        for _ in range(50):
            theirs.send(b"x" * 100)
            await ours.receive(100)
        tasks.cancel_scope.cancel()
    assert turns >= 25


async def test_one_that_is_forgotten_is_closed_in_silence(tmp_path: Path) -> None:
    async with pair(tmp_path) as (ours, theirs):
        forgotten = [await connect_unix(tmp_path / "s")]
        forgotten.append(forgotten)  # type: ignore[arg-type]  # a circle, which is ended in any order
        del forgotten
        gc.collect()
        assert ours.is_quiet()
        assert theirs.fileno() >= 0


async def test_nobody_there_is_told_as_the_system_tells_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await connect_unix(tmp_path / "none")


async def test_a_listener_without_room_is_waited_for(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen(0)
        first = await connect_unix(tmp_path / "s")
        async with anyio.create_task_group() as tasks:
            later: list[UnixStream] = []

            async def connect() -> None:
                later.append(await connect_unix(tmp_path / "s"))

            tasks.start_soon(connect)
            await anyio.sleep(0.02)
            assert later == []
            listener.accept()[0].close()
        for stream in (first, *later):
            await stream.aclose()
