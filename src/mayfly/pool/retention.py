"""Which templates are kept: a budget of disk space, and when each was used last.

The time of use is a stamp of our own beside the template: file systems are mounted without access times.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import structlog

from mayfly.errors import MayflyError, NotFoundError
from mayfly.images.store import Entry, Record

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from mayfly.images.store import Store

__all__ = ["KIND", "disk_bytes", "last_used", "mark_used", "prune", "remove_entry"]

_log = structlog.get_logger("mayfly.pool")

KIND = "template"
"""Kind in the store."""


def mark_used(entry: Entry) -> None:
    """Remember that it is used now. A full disk or a read-only one is no reason to fail."""
    with contextlib.suppress(OSError):
        stamp = _stamp(entry)
        stamp.touch(mode=0o600)
        os.utime(stamp)


def last_used(entry: Entry) -> float:
    """Seconds since the epoch; when it was made where it was never used, 0 when it is gone."""
    for path in (_stamp(entry), entry.path / "entry.json"):
        with contextlib.suppress(OSError):
            return path.stat().st_mtime
    return 0.0


def disk_bytes(entry: Entry) -> int:
    """Space that it takes; memory files are sparse."""
    try:
        return sum(path.stat().st_blocks * 512 for path in entry.path.iterdir())
    except OSError:
        return 0


def remove_entry(store: Store, entry: Entry) -> None:
    """Take it out of the store with its stamp. No error when another process was faster."""
    with contextlib.suppress(NotFoundError):
        store.remove(entry)
    with contextlib.suppress(OSError):
        _stamp(entry).unlink()


def prune(store: Store, *, budget_bytes: int, keep: Collection[str]) -> list[str]:
    """Remove what was used longest ago until the rest fits the budget; the keys in `keep` stay whatever they take.

    Damaged templates go first. Returns the keys that were removed.
    """
    removed = _remove_damaged(store)
    entries = sorted((entry for entry in store.list() if entry.kind == KIND), key=last_used)
    sizes = {entry.key: disk_bytes(entry) for entry in entries}
    total = sum(sizes.values())
    for entry in entries:
        if total <= budget_bytes:
            break
        if entry.key in keep:
            continue
        remove_entry(store, entry)
        total -= sizes[entry.key]
        removed.append(entry.key)
    if removed:
        _log.info("templates removed", keys=removed, budget_mib=budget_bytes >> 20)
    return removed


def _remove_damaged(store: Store) -> list[str]:
    removed = []
    for path in _directories(store):
        try:
            store.get(KIND, path.name)
        except MayflyError:
            store.quarantine(Entry(path, Record(kind=KIND, key=path.name, files={})))
            removed.append(path.name)
    return removed


def _directories(store: Store) -> list[Path]:
    try:
        paths = list((store.build_path.with_name("store") / KIND).iterdir())
    except OSError:
        return []
    return [path for path in paths if path.is_dir() and not path.is_symlink()]


def _stamp(entry: Entry) -> Path:
    return entry.path.with_name(f".used-{entry.key}")
