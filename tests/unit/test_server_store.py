"""The record of executions: bounded, and alive after kills and corruption."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING

import msgspec
import pytest

from mayfly.errors import SetupError
from mayfly.model import Execution, ExecutionId
from mayfly.node.store import ExecutionStore

if TYPE_CHECKING:
    from pathlib import Path


def execution(number: int, stdout: str = "") -> Execution:
    return Execution(id=ExecutionId(f"ex-{number}"), status="succeeded", exit_code=0, stdout=stdout)


def test_what_was_put_is_got_also_after_reopening(tmp_path: Path) -> None:
    with ExecutionStore(tmp_path / "db") as store:
        store.put(execution(1, "hé\0llo"))
        assert store.get(ExecutionId("ex-1")) == execution(1, "hé\0llo")
        assert store.get(ExecutionId("ex-2")) is None
    with ExecutionStore(tmp_path / "db") as store:
        assert store.get(ExecutionId("ex-1")) == execution(1, "hé\0llo")


def test_the_oldest_go_first_by_count_also_after_reopening(tmp_path: Path) -> None:
    for start in (0, 5):
        with ExecutionStore(tmp_path / "db", max_count=3) as store:
            for number in range(start, start + 5):
                store.put(execution(number))
    with ExecutionStore(tmp_path / "db", max_count=3) as store:
        kept = [number for number in range(10) if store.get(ExecutionId(f"ex-{number}"))]
    assert kept == [7, 8, 9]


def test_the_oldest_go_first_by_bytes(tmp_path: Path) -> None:
    with ExecutionStore(tmp_path / "db", max_bytes=10_000) as store:
        for number in range(5):
            store.put(execution(number, "x" * 4000))
        assert [number for number in range(5) if store.get(ExecutionId(f"ex-{number}"))] == [3, 4]


def test_one_that_is_too_large_is_kept_without_its_output(tmp_path: Path) -> None:
    with ExecutionStore(tmp_path / "db", max_bytes=10_000) as store:
        store.put(execution(1, "x" * 20_000))
        kept = store.get(ExecutionId("ex-1"))
    assert kept == msgspec.structs.replace(execution(1), truncated=True)


def test_putting_an_id_again_replaces_it(tmp_path: Path) -> None:
    with ExecutionStore(tmp_path / "db", max_count=2) as store:
        store.put(execution(1, "old"))
        store.put(execution(2))
        store.put(execution(1, "new"))
        again = store.get(ExecutionId("ex-1"))
        assert again is not None
        assert again.stdout == "new"
        assert store.get(ExecutionId("ex-2")) is not None


@pytest.mark.parametrize("content", [b"not a database at all" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_corrupt_file_is_moved_aside_and_a_new_one_begun(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "db").write_bytes(content)
    with ExecutionStore(tmp_path / "db") as store:
        store.put(execution(1))
        assert store.get(ExecutionId("ex-1")) is not None
    assert [path.read_bytes() for path in tmp_path.glob("db.corrupt-*")] == [content]


def test_a_file_of_another_schema_is_moved_aside(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "db") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with ExecutionStore(tmp_path / "db") as store:
        store.put(execution(1))
    assert len(list(tmp_path.glob("db.corrupt-*"))) == 1


def test_pages_corrupted_under_a_running_node_do_not_stop_it(tmp_path: Path) -> None:
    with ExecutionStore(tmp_path / "db") as store:
        for number in range(50):
            store.put(execution(number, "x" * 3000))
    size = (tmp_path / "db").stat().st_size
    with (tmp_path / "db").open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))
    with ExecutionStore(tmp_path / "db") as store:
        assert store.get(ExecutionId("ex-1")) is None
        store.put(execution(99))
        assert store.get(ExecutionId("ex-99")) is not None


def test_a_place_where_nothing_can_be_written_is_a_setup_error(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="cannot open"):
        ExecutionStore(tmp_path / "none" / "db")


def test_a_killed_writer_leaves_a_file_that_opens(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom mayfly.model import Execution\n"
        "from mayfly.node.store import ExecutionStore\nstore = ExecutionStore(Path(sys.argv[1]))\n"
        "for n in range(10**9):\n"
        "    store.put(Execution(id=f'ex-{n}', status='failed', exit_code=1, stdout='x' * 1000))\n"
        "    print(n, flush=True)\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "db")], stdout=subprocess.PIPE, text=True)
    with writer:
        assert writer.stdout is not None
        last = [int(writer.stdout.readline()) for _ in range(20)][-1]
        os.kill(writer.pid, signal.SIGKILL)
    with ExecutionStore(tmp_path / "db") as store:
        assert store.get(ExecutionId(f"ex-{last}")) is not None
    assert not list(tmp_path.glob("db.corrupt-*"))
