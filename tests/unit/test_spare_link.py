"""The link that is opened ahead of need: taken once, waited for while it is opened, and dropped when it is old."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mayfly.errors import AgentLostError
from mayfly.guest import spare
from mayfly.guest.spare import SpareLink

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.anyio


class Agent:
    """Links are numbers, in the order in which they were asked for."""

    def __init__(self) -> None:
        self.opened = 0
        self.closed: list[int] = []
        self.answers = anyio.Event()
        self.answers.set()
        self.refuses = False

    @asynccontextmanager
    async def open_link(self, path: Path, *, deadline_s: float) -> AsyncIterator[int]:
        del path, deadline_s
        self.opened += 1
        number = self.opened
        await self.answers.wait()
        if self.refuses:
            raise AgentLostError("gone")
        try:
            yield number
        finally:
            self.closed.append(number)


@pytest.fixture
async def agent(monkeypatch: pytest.MonkeyPatch) -> Agent:
    agent = Agent()
    monkeypatch.setattr(spare, "open_link", agent.open_link)
    return agent


async def taken(links: SpareLink) -> Any:
    async with links.open() as link:
        return link


async def test_the_one_that_was_prepared_is_taken_once(agent: Agent, tmp_path: Path) -> None:
    links = SpareLink(tmp_path / "v", deadline_s=1)
    for _ in range(3):
        await links.prepare()
    assert [await taken(links), await taken(links)] == [1, 2]
    assert agent.closed == [1, 2]


async def test_one_that_is_being_opened_is_waited_for(agent: Agent, tmp_path: Path) -> None:
    links = SpareLink(tmp_path / "v", deadline_s=1)
    agent.answers = anyio.Event()
    found: list[Any] = []

    async def take() -> None:
        found.append(await taken(links))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(links.prepare)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(take)
        await anyio.wait_all_tasks_blocked()
        agent.answers.set()
    assert (found, agent.opened) == ([1], 1)


async def test_an_agent_that_does_not_answer_is_the_next_operations_affair(agent: Agent, tmp_path: Path) -> None:
    links = SpareLink(tmp_path / "v", deadline_s=1)
    agent.refuses = True
    await links.prepare()
    with pytest.raises(AgentLostError):
        await taken(links)
    agent.refuses = False
    assert await taken(links) == 3


async def test_an_old_one_is_not_used(agent: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    links = SpareLink(tmp_path / "v", deadline_s=1)
    await links.prepare()
    monkeypatch.setattr(spare, "_FRESH_S", -1.0)
    assert await taken(links) == 2
    await links.prepare()
    await links.aclose()
    assert agent.closed == [1, 2, 3]
