"""The record of sandboxes: bounded, and never the reason that a node does not start."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mayfly.errors import SetupError
from mayfly.model import Limits
from mayfly.node.sandbox_store import SandboxStore
from mayfly.sandbox_model import SandboxId, SandboxInfo

if TYPE_CHECKING:
    from pathlib import Path

    from mayfly.sandbox_model import SandboxState


def record(number: int, state: SandboxState = "ended") -> SandboxInfo:
    return SandboxInfo(
        id=SandboxId(f"sb-{number:020x}"),
        state=state,
        image="python",
        lang="python",
        created_at="",
        expires_at="",
        timeout_s=60,
        idle_timeout_s=60,
        limits=Limits(),
        metadata={},
        policy="default",
    )


def test_what_was_put_is_there_after_reopening_the_newest_first(tmp_path: Path) -> None:
    with SandboxStore(tmp_path / "db") as store:
        for number in range(5):
            store.put(record(number, "running"))
        store.put(record(2))
    with SandboxStore(tmp_path / "db") as store:
        assert [info.id for info in store.latest()] == [record(number).id for number in (4, 3, 2, 1, 0)]
        assert {info.id for info in store.running()} == {record(number).id for number in (0, 1, 3, 4)}
        assert store.get(record(2).id) == record(2)
        assert store.get(SandboxId("sb-none")) is None


def test_the_oldest_that_ended_go_first_and_those_that_run_stay(tmp_path: Path) -> None:
    with SandboxStore(tmp_path / "db", max_count=10) as store:
        store.put(record(0, "running"))
        for number in range(1, 50):
            store.put(record(number))
        kept = {info.id for info in store.latest()}
    assert record(0).id in kept
    assert record(49).id in kept
    assert len(kept) == 11


def test_a_file_that_is_no_database_is_moved_aside(tmp_path: Path) -> None:
    (tmp_path / "db").write_bytes(b"no database at all, " * 100)
    with SandboxStore(tmp_path / "db") as store:
        store.put(record(1))
        assert len(store.latest()) == 1
    assert (tmp_path / "db.corrupt").read_bytes().startswith(b"no database")


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="cannot open"):
        SandboxStore(tmp_path / "none" / "db")
