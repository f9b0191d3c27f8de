"""Streams of lines as an application sends them, before clients of every temper."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mayfly.errors import NotFoundError
from mayfly.server import lines
from mayfly.server.lines import LineStream

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]


class Client:
    """Takes what is sent until it is told not to, and goes away when it is told to."""

    def __init__(self) -> None:
        self.taken = b""
        self.ended = False
        self.takes = anyio.Event()
        self.takes.set()
        self.gone = anyio.Event()

    async def receive(self) -> dict[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        await self.takes.wait()
        self.taken += message.get("body", b"")
        self.ended |= message.get("more_body") is False

    async def follow(self, stream: LineStream) -> None:
        await stream({}, self.receive, self.send)  # type: ignore[arg-type]


async def test_lines_and_the_end_go_in_their_order() -> None:
    async def produce(write: Callable[[bytes], Awaitable[None]]) -> bytes:
        await write(b"1\n")
        await write(b"2\n")
        return b"3\n"

    client = Client()
    await client.follow(LineStream(produce))
    assert (client.taken, client.ended) == (b"1\n2\n3\n", True)


async def test_a_client_that_takes_nothing_is_dropped_with_what_is_made_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "_STALL_S", 0.05)
    cancelled = anyio.Event()

    async def produce(write: Callable[[bytes], Awaitable[None]]) -> None:
        try:
            await write(b"never taken\n")
        finally:
            cancelled.set()

    client = Client()
    client.takes = anyio.Event()
    await client.follow(LineStream(produce))
    assert cancelled.is_set()
    assert not client.ended


async def test_a_client_that_takes_no_sign_of_life_is_dropped_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "_STALL_S", 0.05)
    monkeypatch.setattr(lines, "_SILENCE_S", 0.02)
    client = Client()

    async def produce(write: Callable[[bytes], Awaitable[None]]) -> None:
        await write(b"1\n")
        client.takes = anyio.Event()
        await anyio.sleep_forever()

    await client.follow(LineStream(produce))
    assert (client.taken, client.ended) == (b"1\n", False)


async def test_a_client_that_goes_away_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "_SILENCE_S", 0.02)
    client = Client()

    async def produce(_: Callable[[bytes], Awaitable[None]]) -> None:
        client.gone.set()
        await anyio.sleep_forever()

    await client.follow(LineStream(produce))
    assert not client.ended


async def test_a_refusal_before_the_first_line_is_an_error_and_later_cuts_the_stream() -> None:
    async def refuse(_: Callable[[bytes], Awaitable[None]]) -> None:
        raise NotFoundError("there is none")

    async def fail(write: Callable[[bytes], Awaitable[None]]) -> None:
        await write(b"1\n")
        raise NotFoundError("there is none any more")

    client = Client()
    with pytest.raises(NotFoundError):
        await client.follow(LineStream(refuse))
    await client.follow(LineStream(fail))
    assert (client.taken, client.ended) == (b"1\n", False)
