"""The pages of a file that a process has copies of its own of: found, and made for another before it touches them."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mayfly.vmm.workingset import copy_working_set, find_working_set

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAGE = 4096
PAGES = 1200  # more than one piece of the page map
CHILD = """
import mmap, sys
file = open(sys.argv[1], "r+b")
memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
print("mapped", flush=True)
for line in sys.stdin:
    word, page = line.split()
    at = int(page) * 4096
    if word == "write":
        memory[at] = 7
        print("written", flush=True)
    else:
        print(memory[at : at + 4096].hex(), flush=True)
"""


class _Child:
    """A process that maps the file as a VMM maps its guest's memory."""

    def __init__(self, memory: Path) -> None:
        command = [sys.executable, "-c", CHILD, str(memory)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.pid = self._process.pid
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "mapped\n"

    def ask(self, word: str, page: int) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{word} {page}\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("memory") / "memory"
    path.write_bytes(os.urandom(PAGES * PAGE))
    return path


@pytest.fixture
def child(memory: Path) -> Iterator[_Child]:
    made = _Child(memory)
    try:
        copy_working_set(made.pid, memory, ())
    except PermissionError:
        pytest.skip("the right to reach into another process's memory")
    yield made
    made.end()


def test_what_was_written_is_found_and_what_was_only_read_is_not(child: _Child, memory: Path) -> None:
    assert find_working_set(child.pid, memory) == ()
    for page in (3, 4, 5, 900, PAGES - 1):
        child.ask("write", page)
    child.ask("read", 8)
    expected = ((3 * PAGE, 3 * PAGE), (900 * PAGE, PAGE), ((PAGES - 1) * PAGE, PAGE))
    assert find_working_set(child.pid, memory) == expected


def test_copies_are_made_beforehand_and_hold_what_the_file_holds(child: _Child, memory: Path) -> None:
    runs = ((0, PAGE), (700 * PAGE, 5 * PAGE))
    copy_working_set(child.pid, memory, runs)
    assert find_working_set(child.pid, memory) == runs
    content = memory.read_bytes()
    for page in (0, 1, 700, 704, 705):
        assert bytes.fromhex(child.ask("read", page)) == content[page * PAGE : (page + 1) * PAGE]


_NUMBERS = st.integers(min_value=-(1 << 70), max_value=1 << 70) | st.integers(-2, PAGES + 2).map(PAGE.__mul__)


@given(runs=st.lists(st.tuples(_NUMBERS, _NUMBERS), max_size=4))
def test_runs_that_are_not_of_the_file_change_nothing(memory: Path, runs: list[tuple[int, int]]) -> None:
    child = _Child(memory)
    try:
        copy_working_set(child.pid, memory, tuple(runs))
        content = memory.read_bytes()
        for page in (0, PAGES // 2, PAGES - 1):
            assert bytes.fromhex(child.ask("read", page)) == content[page * PAGE : (page + 1) * PAGE]
    except PermissionError:
        pytest.skip("the right to reach into another process's memory")
    finally:
        child.end()


def test_a_process_that_has_ended_is_an_error_of_the_system(child: _Child, memory: Path) -> None:
    child.end()
    for act in (lambda: find_working_set(child.pid, memory), lambda: copy_working_set(child.pid, memory, ((0, PAGE),))):
        with pytest.raises((FileNotFoundError, ProcessLookupError)):
            act()
