"""Files with holes, packed: only what holds data is kept, and unpacking makes the holes again.

A pack is `MFSP`, the file's size, then for each run of data its offset, its length and its bytes; numbers are of 64
bits, little end first.
"""

from __future__ import annotations

import errno
import os
import struct
from typing import TYPE_CHECKING

from mayfly.errors import CorruptError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["pack_sparse", "packed_size", "unpack_sparse"]

_HEAD = struct.Struct("<4sQ")
_RUN = struct.Struct("<QQ")
_MAGIC = b"MFSP"
_SIZE_MAX = 16 << 30
_RUNS_MAX = 1 << 20


def pack_sparse(source: Path, target: Path) -> None:
    """Write the pack of `source` to the new file `target`. OSError."""
    reading = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    writing = -1
    try:
        writing = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.write(writing, _HEAD.pack(_MAGIC, os.fstat(reading).st_size))
        for start, end in _runs(reading):
            os.write(writing, _RUN.pack(start, end - start))
            os.lseek(reading, start, os.SEEK_SET)
            _move(reading, writing, end - start)
    finally:
        os.close(reading)
        if writing >= 0:
            os.close(writing)


def packed_size(pack: Path) -> int:
    """Size in bytes of the file that unpacking makes. CorruptError, OSError."""
    reading = os.open(pack, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _read_head(reading, pack)
    finally:
        os.close(reading)


def unpack_sparse(pack: Path, target: Path) -> None:
    """Make the new file `target` from a pack. CorruptError for what is no pack, OSError."""
    reading = os.open(pack, os.O_RDONLY | os.O_CLOEXEC)
    writing = -1
    try:
        size = _read_head(reading, pack)
        writing = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.ftruncate(writing, size)
        for _ in range(_RUNS_MAX):
            head = os.read(reading, _RUN.size)
            if not head:
                return
            offset, length = _RUN.unpack(head) if len(head) == _RUN.size else (size, 1)
            if offset + length > size:
                raise CorruptError(f"{pack} does not fit the file it was made from")
            os.lseek(writing, offset, os.SEEK_SET)
            _move(reading, writing, length)
        raise CorruptError(f"{pack} has more than {_RUNS_MAX} runs")
    finally:
        os.close(reading)
        if writing >= 0:
            os.close(writing)


def _read_head(reading: int, pack: Path) -> int:
    head = os.read(reading, _HEAD.size)
    if len(head) == _HEAD.size:
        magic, size = _HEAD.unpack(head)
        if magic == _MAGIC and size <= _SIZE_MAX:
            return int(size)
    raise CorruptError(f"{pack} is no packed file")


def _runs(descriptor: int) -> Iterator[tuple[int, int]]:
    size, end = os.fstat(descriptor).st_size, 0
    while end < size:
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole follows
                return
            raise
        end = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield start, end


def _move(reading: int, writing: int, left: int) -> None:
    """Copy the next bytes from one to the other, at the places where both are."""
    while left > 0:
        moved = os.sendfile(writing, reading, None, left)
        if moved == 0:
            raise CorruptError("a packed file ends too early")
        left -= moved
