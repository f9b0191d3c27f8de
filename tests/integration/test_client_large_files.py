"""Much data through the Python client: of a file neither it nor the node holds more than a few pieces, and what a
program printed stays with neither."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mayfly import Runner, Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.timeout(180)

MIB = 1 << 20
FILE_BYTES = 64 * MIB
MORE_BYTES = 24 * MIB
"""What each of the two processes may take beside what it had."""

NODE = """
import os, sys
from pathlib import Path
import anyio, anyio.to_thread
from mayfly.testing.service import open_service

async def main():
    async with open_service(Path(sys.argv[1])) as service:
        print(service.address, flush=True)
        os.dup2(2, 1)  # what is logged from here on has no reader
        await anyio.to_thread.run_sync(sys.stdin.read)

anyio.run(main)
"""


@pytest.fixture
def node(tmp_path: Path) -> Iterator[tuple[int, str]]:
    """A node whose machines are plain processes, in a process of its own: its id and its address."""
    directory = tmp_path / "node"
    directory.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", NODE, str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().decode().strip()
            assert address, "the node did not start"
            yield process.pid, address
            process.communicate(timeout=60)
        finally:
            process.kill()


def _of_status(pid: int, name: str) -> int:
    """A size of `/proc/PID/status`, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


@contextlib.contextmanager
def _little_memory(*pids: int) -> Iterator[None]:
    """Fails when one of the processes takes much more memory at any moment of the block than it had before."""
    for pid in pids:
        try:
            Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak begins anew
        except OSError as error:
            pytest.skip(f"peaks of memory that can be reset: {error}")
    before = {pid: _of_status(pid, "VmRSS") for pid in pids}
    yield
    for pid in pids:
        assert _of_status(pid, "VmHWM") < before[pid] + MORE_BYTES


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def test_large_files_take_little_memory_on_their_way(node: tuple[int, str], tmp_path: Path) -> None:
    pid, address = node
    large, back = tmp_path / "large", tmp_path / "back"
    with large.open("wb") as file:
        block = os.urandom(MIB)
        for number in range(FILE_BYTES // MIB):
            file.write(number.to_bytes(8, "big") + block[8:])
    wanted = _digest(large)

    def write(sandbox: Sandbox) -> None:
        with large.open("rb") as content:
            assert sandbox.files.write("written", content).size == FILE_BYTES

    def stream(sandbox: Sandbox) -> None:
        seen = hashlib.sha256()
        for piece in sandbox.files.stream("written"):
            seen.update(piece)
        assert seen.hexdigest() == wanted

    def slow(sandbox: Sandbox) -> None:
        """Who reads slowly has nothing pile up anywhere."""
        pieces = iter(sandbox.files.stream("written"))
        size = len(next(pieces))
        time.sleep(0.5)
        assert size + sum(map(len, pieces)) == FILE_BYTES

    steps: list[Callable[[Sandbox], object]] = [
        write,
        lambda sandbox: sandbox.files.upload(large, "sent"),
        stream,
        slow,
        lambda sandbox: sandbox.files.download("sent", back),
    ]
    with Sandbox(node=address) as sandbox:
        sandbox.files.write("first", "loads what is loaded once")
        assert sandbox.files.read("first").startswith("loads")
        for step in steps:
            with _little_memory(pid, os.getpid()):
                step(sandbox)
    assert _digest(back) == wanted
    large.unlink()
    back.unlink()


def test_memory_does_not_grow_with_what_programs_printed(node: tuple[int, str]) -> None:
    pid, address = node
    printed = MIB
    program = f"print('x' * {printed - 1})"

    def round_of(runs: int) -> int:
        for _ in range(runs):
            assert len(runner.run(program).stdout) == printed
        return _of_status(pid, "VmRSS")

    with Runner(node=address) as runner:
        round_of(24)
        first = round_of(24)
        assert round_of(72) < first + 24 * MIB
