"""The memory that every clone of a template writes to first: found in one clone, copied for others before they run.

A clone's memory is a private mapping of its template's file, of which nothing is there at first. A page that the guest
reads and then writes takes it out of the guest twice, and the second time the page is copied. Pages of the working set
are copied beforehand, from outside and many at once, so that each costs the guest one exit that finds it in place.
"""

from __future__ import annotations

import mmap
import os
from array import array
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Runs", "copy_working_set", "find_working_set"]

Runs = tuple[tuple[int, int], ...]
"""Offsets and lengths of runs of whole pages in a memory file, in bytes, ascending."""

_PAGE = mmap.PAGESIZE
_RUN_MAX_BYTES = 1 << 20
_ENTRY_BYTES = 8  # of /proc/PID/pagemap
_PRESENT = 1 << 63
_OF_FILE = 1 << 61
_CHUNK_BYTES = 32 << 10


def find_working_set(pid: int, memory: Path) -> Runs:
    """The pages of `memory` of which the VMM with this pid has copies of its own by now. OSError. Blocking."""
    runs: list[tuple[int, int]] = []
    pagemap = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    try:
        for start, end, offset in _regions(pid, memory.stat().st_ino):
            for page in _own_pages(pagemap, start, end):
                at = offset + page - start
                if runs and sum(runs[-1]) == at and runs[-1][1] < _RUN_MAX_BYTES:
                    runs[-1] = runs[-1][0], runs[-1][1] + _PAGE
                else:
                    runs.append((at, _PAGE))
    finally:
        os.close(pagemap)
    return tuple(runs)


def copy_working_set(pid: int, memory: Path, runs: Runs) -> None:
    """Give the VMM with this pid, whose guest is paused, copies of these pages of its own. OSError. Blocking."""
    target = os.open(f"/proc/{pid}/mem", os.O_RDWR | os.O_CLOEXEC)  # of this very process, also once it has ended
    try:
        with memory.open("rb", buffering=0) as file:
            source = file.fileno()
            for start, end, offset in _regions(pid, os.fstat(source).st_ino):
                for at, length in runs:
                    if offset <= at and at + length <= offset + end - start and 0 < length <= _RUN_MAX_BYTES:
                        os.pwrite(target, os.pread(source, length, at), start + at - offset)
    finally:
        os.close(target)


def _regions(pid: int, inode: int) -> Iterator[tuple[int, int, int]]:
    """Start and end of each writable mapping of the file, and where in the file it begins."""
    with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as maps:  # noqa: PTH123 - not a file
        for line in maps:
            addresses, rights, offset, _, its_inode, *_ = line.split(maxsplit=5)
            if int(its_inode) == inode and rights == "rw-p":
                start, _, end = addresses.partition("-")
                yield int(start, 16), int(end, 16), int(offset, 16)


def _own_pages(pagemap: int, start: int, end: int) -> Iterator[int]:
    """Addresses of the pages between two addresses that are the process's own."""
    first, last = start // _PAGE * _ENTRY_BYTES, end // _PAGE * _ENTRY_BYTES
    for at in range(first, last, _CHUNK_BYTES):
        entries = os.pread(pagemap, min(_CHUNK_BYTES, last - at), at)
        if not entries.strip(b"\0"):
            continue
        for number, entry in enumerate(array("Q", entries), at // _ENTRY_BYTES):
            if entry & (_PRESENT | _OF_FILE) == _PRESENT:
                yield number * _PAGE
