"""The node's record of executions: one SQLite file, bounded in count and bytes, oldest out first.

Written in WAL mode, so that a kill at any moment loses at most the newest entries and never the file. A file that
SQLite cannot read is moved aside, said in the log, and a new one begun: a lost record must not stop the node.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from typing import TYPE_CHECKING, Self

import msgspec
import structlog

from mayfly.errors import DiskFullError, SetupError
from mayfly.model import Execution, ExecutionId

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

__all__ = ["ExecutionStore"]

_log = structlog.get_logger(__name__)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS executions (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    bytes INTEGER NOT NULL,
    body BLOB NOT NULL
)
"""
_SCHEMA_VERSION = 1


class ExecutionStore:
    """Finished executions by id, in the file at `path`; call from any thread, `close` when done.

    At most `max_count` entries and `max_bytes` of their JSON are kept. SetupError or DiskFullError when the file
    cannot be written.
    """

    def __init__(self, path: Path, *, max_count: int = 10_000, max_bytes: int = 256 * 1024 * 1024) -> None:
        self._path = path
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._count = 0
        self._bytes = 0
        self._connection = self._open()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def put(self, execution: Execution) -> None:
        """Keep `execution`, replacing one of the same id, and drop the oldest ones beyond the bounds.

        One that is larger than `max_bytes` by itself is kept without its output, marked `truncated`.
        """
        body = msgspec.json.encode(execution)
        if len(body) > self._max_bytes:
            execution = msgspec.structs.replace(execution, stdout="", stderr="", truncated=True)
            body = msgspec.json.encode(execution)
        with self._lock:
            try:
                self._insert(execution.id, body)
            except sqlite3.OperationalError as error:
                kind = DiskFullError if "full" in str(error) else SetupError
                raise kind(f"cannot record the execution in {self._path}: {error}") from error
            except sqlite3.DatabaseError as error:
                self._connection.close()
                self._connection = self._afresh(error)
                self._insert(execution.id, body)

    def get(self, execution_id: ExecutionId) -> Execution | None:
        """The execution, or None where it was never kept or has been dropped."""
        with self._lock:
            try:
                row = self._connection.execute("SELECT body FROM executions WHERE id = ?", (execution_id,)).fetchone()
                return None if row is None else msgspec.json.decode(row[0], type=Execution)
            except (sqlite3.DatabaseError, msgspec.MsgspecError) as error:
                _log.warning("execution record unreadable", id=execution_id, error=str(error))
                return None

    def close(self) -> None:
        """Close the file; nothing may be called after."""
        with self._lock:
            self._connection.close()

    def _remove(self, where: str, *values: str) -> None:
        query = f"DELETE FROM executions WHERE {where} RETURNING bytes"  # noqa: S608  # `where` is a literal above
        for (size,) in self._connection.execute(query, values).fetchall():
            self._count -= 1
            self._bytes -= size

    def _insert(self, execution_id: ExecutionId, body: bytes) -> None:
        """One transaction; the counters go back with it when it fails."""
        before = self._count, self._bytes
        try:
            with self._connection:
                self._remove("id = ?", execution_id)
                self._connection.execute(
                    "INSERT INTO executions (id, bytes, body) VALUES (?, ?, ?)", (execution_id, len(body), body)
                )
                self._count += 1
                self._bytes += len(body)
                while self._count > self._max_count or (self._bytes > self._max_bytes and self._count > 1):
                    self._remove("seq = (SELECT min(seq) FROM executions)")
        except sqlite3.DatabaseError:
            self._count, self._bytes = before
            raise

    def _open(self) -> sqlite3.Connection:
        try:
            return self._connect()
        except sqlite3.OperationalError as error:
            # Locked, no right, no directory: nothing that moving the file aside would help.
            raise SetupError(f"cannot open {self._path}: {error}") from error
        except sqlite3.DatabaseError as error:
            return self._afresh(error)

    def _afresh(self, reason: sqlite3.DatabaseError) -> sqlite3.Connection:
        aside = self._move_aside()
        _log.warning("execution records unreadable, moved aside", path=str(self._path), to=aside, error=str(reason))
        try:
            return self._connect()
        except sqlite3.DatabaseError as error:
            raise SetupError(f"cannot open {self._path}: {error}") from error

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=5.0, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            _check_version(connection)
            with connection:
                connection.execute(_SCHEMA)
                connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
            totals = connection.execute("SELECT count(*), coalesce(sum(bytes), 0) FROM executions").fetchone()
            self._count, self._bytes = totals
        except BaseException:
            connection.close()
            raise
        return connection

    def _move_aside(self) -> str:
        aside = self._path.with_name(f"{self._path.name}.corrupt-{time.time_ns()}")
        try:
            self._path.rename(aside)
            for suffix in ("-wal", "-shm"):
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
        except OSError as error:
            raise SetupError(f"cannot move the unreadable {self._path} aside: {error.strerror}") from error
        for old in sorted(self._path.parent.glob(f"{self._path.name}.corrupt-*"))[:-1]:
            with contextlib.suppress(OSError):
                old.unlink()
        return str(aside)


def _check_version(connection: sqlite3.Connection) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version not in {0, _SCHEMA_VERSION}:
        raise sqlite3.DatabaseError(f"schema version {version}, expected {_SCHEMA_VERSION}")
