"""A machine that waits is warmed up: nothing that a program sees or gets is changed by it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mayfly.guest.frames import FrameType, encode
from mayfly.testing.agent import AgentProcess, agent_process, read_frames

if TYPE_CHECKING:
    from collections.abc import Iterator

_WARM = encode(FrameType.CALL, {"op": "warm", "args": {}})
_LOOK = """import os, sys, gc
print(sorted(os.listdir(".")), sorted(os.listdir("/proc/self/fd")), sys.argv, len(os.environ))
print(sorted(sys.modules), os.getppid() > 0, os.getcwd() == os.environ["HOME"])
"""
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a runner's memory is root's to touch")


@pytest.fixture
def agent() -> Iterator[AgentProcess]:
    with agent_process() as agent:
        yield agent


def _wait_for_runner(agent: AgentProcess) -> int:
    """The runner, once it waits for its program."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        for pid in agent.runners():
            if Path(f"/proc/{pid}/syscall").read_text().startswith("0 0x3 "):
                return pid
        time.sleep(0.01)
    raise TimeoutError("no runner waits")


def test_a_program_runs_in_the_runner_that_was_warmed_up_and_sees_what_it_would_see(agent: AgentProcess) -> None:
    with agent_process() as other:
        _wait_for_runner(other)
        plain = other.run(_LOOK)
    _wait_for_runner(agent)
    for _ in range(2):
        assert [(frame.type, frame.json()) for frame in agent.ask(_WARM)] == [(FrameType.ANSWER, {})]
    runner = _wait_for_runner(agent)
    warmed = agent.run(_LOOK + "print(os.getpid())\n")
    assert plain.stdout
    assert warmed.stdout.decode().splitlines()[:-1] == plain.stdout.decode().splitlines()
    assert warmed.stdout.split()[-1].decode() == str(runner)
    assert warmed.exit_code == 0


def test_every_page_of_the_runner_is_what_it_was(agent: AgentProcess) -> None:
    pid = _wait_for_runner(agent)
    before = _memory(pid)
    agent.ask(_WARM)
    assert _memory(pid) == before


def _memory(pid: int) -> dict[str, bytes]:
    found = {}
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            addresses, rights, _ = line.split(None, 2)
            if rights.startswith("rw") and "[v" not in line:
                start, end = (int(each, 16) for each in addresses.split("-"))
                found[addresses] = os.pread(memory.fileno(), end - start, start)
    return found


def test_a_program_that_comes_meanwhile_is_served_and_warming_ends(agent: AgentProcess) -> None:
    _wait_for_runner(agent)
    with agent.connect() as warming:
        warming.sendall(_WARM)
        assert agent.run("print(6 * 7)").stdout == b"42\n"
        assert [frame.type for frame in read_frames(warming)] == [FrameType.ANSWER]
    assert agent.run("print(6 * 7)").stdout == b"42\n"


def test_a_host_that_leaves_ends_it(agent: AgentProcess) -> None:
    for _ in range(20):
        with agent.connect() as warming:
            warming.sendall(_WARM)
    assert agent.run("import os; print(os.listdir('.'))").stdout == b"['main.py']\n"
    assert agent.answers()


def test_there_is_nothing_to_warm_up_where_no_runner_waits(agent: AgentProcess) -> None:
    assert agent.run("print(1)").exit_code == 0
    assert [frame.type for frame in agent.ask(_WARM)] == [FrameType.ANSWER]
