"""Packed files: the same bytes come back, holes stay holes, and what is no pack is refused."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mayfly.errors import CorruptError
from mayfly.host.sparse import pack_sparse, packed_size, unpack_sparse

if TYPE_CHECKING:
    from pathlib import Path

_SLOW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(pieces=st.lists(st.tuples(st.integers(0, 3 << 20), st.binary(max_size=9000)), max_size=6))
@_SLOW
def test_what_was_packed_comes_back_byte_for_byte(tmp_path: Path, pieces: list[tuple[int, bytes]]) -> None:
    source, pack, target = tmp_path / "disk", tmp_path / "pack", tmp_path / "again"
    for path in (source, pack, target):
        path.unlink(missing_ok=True)
    with source.open("wb") as file:
        file.truncate(3 << 20)
        for offset, data in pieces:
            file.seek(offset)
            file.write(data)
    pack_sparse(source, pack)
    unpack_sparse(pack, target)
    assert target.read_bytes() == source.read_bytes()
    assert packed_size(pack) == source.stat().st_size


def test_a_large_empty_file_takes_next_to_nothing(tmp_path: Path) -> None:
    source, pack, target = tmp_path / "disk", tmp_path / "pack", tmp_path / "again"
    with source.open("wb") as file:
        file.truncate(16 << 30)
        file.seek(8 << 30)
        file.write(b"x" * 4096)
    pack_sparse(source, pack)
    assert pack.stat().st_size < 1 << 20
    unpack_sparse(pack, target)
    assert target.stat().st_size == 16 << 30
    assert target.stat().st_blocks * 512 < 1 << 20


@given(data=st.binary(max_size=200), head=st.booleans())
@_SLOW
def test_any_bytes_are_unpacked_or_refused(tmp_path: Path, data: bytes, head: bool) -> None:
    pack, target = tmp_path / "pack", tmp_path / "again"
    target.unlink(missing_ok=True)
    pack.write_bytes((b"MFSP" + (1 << 16).to_bytes(8, "little") if head else b"") + data)
    try:
        unpack_sparse(pack, target)
    except CorruptError:
        return
    assert target.stat().st_size <= 16 << 30


def test_a_pack_cut_short_or_made_for_another_file_is_refused(tmp_path: Path) -> None:
    source, pack = tmp_path / "disk", tmp_path / "pack"
    source.write_bytes(os.urandom(70_000))
    pack_sparse(source, pack)
    whole = pack.read_bytes()
    for number, spoilt in enumerate((whole[:-1], whole[:30], whole[:4] + bytes(8) + whole[12:])):
        pack.write_bytes(spoilt)
        with pytest.raises(CorruptError):
            unpack_sparse(pack, tmp_path / f"again-{number}")
