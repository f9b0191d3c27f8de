"""The event loop of Mayfly's own processes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from mayfly.host.eventloop import open_portal, run

if TYPE_CHECKING:
    import pytest


def test_a_wait_cancelled_as_its_socket_becomes_ready_is_no_word_on_standard_error(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    async def late() -> int:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        loop.call_soon(future.cancel)
        loop.call_soon(future.set_result, None)
        await asyncio.wait([future])
        await asyncio.sleep(0)
        return 7

    assert run(late()) == 7
    with open_portal() as portal:
        assert portal.call(late) == 7
    assert not caplog.records
    assert capfd.readouterr().err == ""


def test_other_failures_in_callbacks_are_still_reported(caplog: pytest.LogCaptureFixture) -> None:
    async def failing() -> None:
        asyncio.get_running_loop().call_soon(lambda: 1 // 0)
        await asyncio.sleep(0)

    run(failing())
    assert "ZeroDivisionError" in caplog.text
