"""Giving back the disk blocks of a memory file that hold only zeros."""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["dig_holes"]

_CHUNK_BYTES = 4 << 20
_BLOCK_BYTES = 64 << 10
_ZERO_BLOCK = bytes(_BLOCK_BYTES)
_KEEP_SIZE_PUNCH_HOLE = 0x01 | 0x02


def dig_holes(path: Path) -> int:
    """Punch out every aligned 64 KiB of zeros; returns the bytes given back. A file system without holes gives 0."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    given_back = 0
    path.chmod(0o600)
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        for start in range(0, os.fstat(descriptor).st_size, _CHUNK_BYTES):
            for offset, length in _zero_runs(os.pread(descriptor, _CHUNK_BYTES, start)):
                if libc.fallocate(descriptor, _KEEP_SIZE_PUNCH_HOLE, start + offset, length) != 0:
                    return given_back
                given_back += length
    finally:
        os.close(descriptor)
        path.chmod(0o444)
    return given_back


def _zero_runs(data: bytes) -> list[tuple[int, int]]:
    """Offsets and lengths of the runs of zero blocks in one chunk."""
    runs: list[tuple[int, int]] = []
    for offset in range(0, len(data) - _BLOCK_BYTES + 1, _BLOCK_BYTES):
        if data[offset : offset + _BLOCK_BYTES] != _ZERO_BLOCK:
            continue
        if runs and sum(runs[-1]) == offset:
            runs[-1] = (runs[-1][0], runs[-1][1] + _BLOCK_BYTES)
        else:
            runs.append((offset, _BLOCK_BYTES))
    return runs
