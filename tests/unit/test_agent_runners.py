"""Which interpreters the agent keeps waiting, and when."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, cast

import pytest

from mayfly.agent.process import Child, Settings
from mayfly.agent.runners import Runners

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mayfly.agent.loop import Loop
    from mayfly.agent.process import Enclosure


class Nobody:
    """Stands for the agent's loop and for an enclosure: nothing happens."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


@pytest.fixture
def started() -> Iterator[list[Child]]:
    children: list[Child] = []
    yield children
    for child in children:
        child.close()


@pytest.fixture
def runners(started: list[Child]) -> Runners:
    def spawn(start: Callable[[Enclosure], Child]) -> Child:
        del start
        child = Child(cast("Any", Nobody()))
        child.pid = os.getpid()
        started.append(child)
        return child

    settings = Settings(home="", site="", python="", bash="", uid=None, in_guest=False, preload=["numpy"])
    return Runners(cast("Loop", Nobody()), settings, spawn, 1 << 30)


def test_a_plain_interpreter_and_one_that_preloads_wait(runners: Runners, started: list[Child]) -> None:
    runners.get_ready()
    assert len(started) == 2


def test_nothing_is_got_ready_beside_a_program_that_came_first(runners: Runners, started: list[Child]) -> None:
    program = runners.take(b"print(1)")
    runners.get_ready()
    assert started == [program]


def test_nothing_is_got_ready_beside_a_bash_program_that_came_first(runners: Runners, started: list[Child]) -> None:
    runners.stop_preloading()
    runners.get_ready()
    assert started == []
