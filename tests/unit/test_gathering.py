"""Answers leave in one piece; and what a transport gathers is what would have been written, in the same order."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mayfly.server.gathering import GatheringTransport
from mayfly.testing.nodes import ScriptedNode, open_server

if TYPE_CHECKING:
    from pathlib import Path


class _Inner:
    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.calls: list[str] = []

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def close(self) -> None:
        self.calls.append("close")

    def abort(self) -> None:
        self.calls.append("abort")

    def write_eof(self) -> None:
        self.calls.append("write_eof")


def _gathering(loop: asyncio.AbstractEventLoop) -> tuple[GatheringTransport, _Inner]:
    inner: Any = _Inner()
    return GatheringTransport(inner, loop), inner


@given(turns=st.lists(st.lists(st.binary(max_size=100_000), max_size=5), max_size=5))
def test_each_turn_is_one_write_and_nothing_is_lost(turns: list[list[bytes]]) -> None:
    async def write() -> list[bytes]:
        transport, inner = _gathering(asyncio.get_running_loop())
        for turn in turns:
            before = len(inner.written)
            for data in turn:
                transport.write(data)
            await asyncio.sleep(0)
            if sum(map(len, turn)) < 64 * 1024:
                assert len(inner.written) - before <= 1
        return inner.written

    written = asyncio.run(write())
    assert b"".join(written) == b"".join(data for turn in turns for data in turn)
    assert b"" not in written


@pytest.mark.anyio
async def test_what_was_written_goes_before_the_end() -> None:
    for ending in ("close", "write_eof"):
        transport, inner = _gathering(asyncio.get_running_loop())
        transport.write(b"last words")
        getattr(transport, ending)()
        assert (inner.written, inner.calls) == ([b"last words"], [ending])
    transport, inner = _gathering(asyncio.get_running_loop())
    transport.write(b"not any more")
    transport.abort()
    await asyncio.sleep(0)
    assert (inner.written, inner.calls) == ([], ["abort"])


@pytest.mark.anyio
async def test_an_answer_wakes_its_reader_once(tmp_path: Path) -> None:
    async with open_server(ScriptedNode(), unix_socket=tmp_path / "n"):
        with socket.socket(socket.AF_UNIX) as asking:
            asking.setblocking(False)
            asking.connect(str(tmp_path / "n"))
            for _ in range(2):
                asking.send(b"GET /healthz HTTP/1.1\r\nHost: node\r\n\r\n")
                with anyio.fail_after(10):
                    await anyio.wait_readable(asking)
                assert asking.recv(65536).endswith(b"}")
