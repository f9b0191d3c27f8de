"""The node's record of sandboxes: those that it has, and those that it had, in one SQLite file, bounded in count.

A sandbox that the record calls running when a node starts was held by a node that is no more: it is lost.
"""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING, Self

import msgspec
import structlog

from mayfly.errors import DiskFullError, SetupError
from mayfly.sandbox_model import SandboxId, SandboxInfo

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

__all__ = ["SandboxStore"]

_log = structlog.get_logger(__name__)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS sandboxes (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    running INTEGER NOT NULL,
    body BLOB NOT NULL
)
"""
_SCHEMA_VERSION = 1
_LIST_MAX = 1000


class SandboxStore:
    """Sandboxes by id in the file at `path`; `close` when done. At most `max_count` are kept, the oldest go first.

    SetupError or DiskFullError when the file cannot be written.
    """

    def __init__(self, path: Path, *, max_count: int = 10_000) -> None:
        self._path = path
        self._max_count = max_count
        self._connection = self._open()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def put(self, info: SandboxInfo) -> None:
        """Keep `info`, in the place of what was known of the same sandbox."""
        try:
            with self._connection:
                self._connection.execute(
                    "INSERT INTO sandboxes (id, running, body) VALUES (?, ?, ?) "
                    "ON CONFLICT (id) DO UPDATE SET running = excluded.running, body = excluded.body",
                    (info.id, info.state == "running", msgspec.json.encode(info)),
                )
                self._connection.execute(
                    "DELETE FROM sandboxes WHERE NOT running AND seq <= (SELECT max(seq) FROM sandboxes) - ?",
                    (self._max_count,),
                )
        except sqlite3.DatabaseError as error:
            kind = DiskFullError if "full" in str(error) else SetupError
            raise kind(f"cannot record the sandbox in {self._path}: {error}") from error

    def get(self, sandbox_id: SandboxId) -> SandboxInfo | None:
        """What is known of the sandbox, None where nothing is."""
        found = self._select("WHERE id = ?", sandbox_id)
        return found[0] if found else None

    def latest(self) -> list[SandboxInfo]:
        """The newest first, at most 1,000."""
        return self._select(f"ORDER BY seq DESC LIMIT {_LIST_MAX}")

    def running(self) -> list[SandboxInfo]:
        """Those that are recorded as running."""
        return self._select("WHERE running")

    def close(self) -> None:
        """Close the file; nothing may be called after."""
        self._connection.close()

    def _select(self, rest: str, *values: str) -> list[SandboxInfo]:
        found = []
        try:
            rows = self._connection.execute(f"SELECT body FROM sandboxes {rest}", values).fetchall()  # noqa: S608 - literals
            found = [msgspec.json.decode(body, type=SandboxInfo) for (body,) in rows]
        except (sqlite3.DatabaseError, msgspec.MsgspecError) as error:
            _log.warning("sandbox records unreadable", path=str(self._path), error=str(error))
        return found

    def _open(self) -> sqlite3.Connection:
        try:
            return self._connect()
        except sqlite3.OperationalError as error:
            # Locked, no right, no directory: nothing that moving the file aside would help.
            raise SetupError(f"cannot open {self._path}: {error}") from error
        except sqlite3.DatabaseError as error:
            aside = self._path.with_name(f"{self._path.name}.corrupt")
            _log.warning("sandbox records unreadable, moved aside", to=str(aside), error=str(error))
            with contextlib.suppress(OSError):
                self._path.replace(aside)
            for suffix in ("-wal", "-shm"):
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
            try:
                return self._connect()
            except sqlite3.DatabaseError as again:
                raise SetupError(f"cannot open {self._path}: {again}") from again

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=5.0, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            _check_version(connection)
            with connection:
                connection.execute(_SCHEMA)
                connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
        except BaseException:
            connection.close()
            raise
        return connection


def _check_version(connection: sqlite3.Connection) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version not in {0, _SCHEMA_VERSION}:
        raise sqlite3.DatabaseError(f"schema version {version}, expected {_SCHEMA_VERSION}")
