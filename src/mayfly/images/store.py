"""The content-addressed store: finished artefacts, each whole or absent.

An entry is a directory `store/<kind>/<key>/` with its files and `entry.json`. It is built aside, hashed, made
read-only and renamed into place; the link `store/<kind>/current` names the entry in use. A process killed at
any point leaves either the old state or the new one, and litter in `build/` that the next build of that kind
removes.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mayfly.errors import CorruptError, DiskFullError, NotFoundError, SetupError
from mayfly.host.locks import lock_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from mayfly.host.paths import StatePaths

__all__ = ["Entry", "FileRecord", "Record", "Store", "hash_file", "remove_tree"]

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,79}")
_RECORD = "entry.json"
_RECORD_MAX_BYTES = 256 * 1024
_CURRENT = "current"
_LOCK = ".lock"
_LOCK_TIMEOUT_S = 3600.0
_HINT = "run `mayfly setup`"
_HINT_AGAIN = "run `mayfly setup` to make it again"


class FileRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of an entry. `mtime_ns` shows cheaply whether somebody wrote to it since."""

    sha256: str
    size: int
    mtime_ns: int


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What `entry.json` holds. `inputs` says what the key was made of, `meta` what came out."""

    kind: str
    key: str
    files: dict[str, FileRecord]
    meta: dict[str, str] = {}
    inputs: dict[str, str] = {}
    created: str = ""


class Entry(msgspec.Struct, frozen=True):
    """A finished artefact: its directory and its record."""

    path: Path
    record: Record

    @property
    def kind(self) -> str:
        """Kind of artefact, as `kernel` or `image-python`."""
        return self.record.kind

    @property
    def key(self) -> str:
        """Name within the kind, made from what went in."""
        return self.record.key

    @property
    def meta(self) -> dict[str, str]:
        """Facts about the content, as `version`."""
        return self.record.meta

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(item.size for item in self.record.files.values())

    def file(self, name: str) -> Path:
        """Path of one file; CorruptError when the entry does not list it."""
        if name not in self.record.files:
            raise CorruptError(f"{self.kind} {self.key} has no file {name}", hint=_HINT_AGAIN)
        return self.path / name

    def sha256(self, name: str) -> str:
        """Hash that the file was stored under."""
        self.file(name)
        return self.record.files[name].sha256


class Store:
    """The store of one state directory. Safe for several processes and threads at once."""

    def __init__(self, paths: StatePaths) -> None:
        self._store = paths.store
        self._build = paths.build

    @property
    def build_path(self) -> Path:
        """Where half-built things go; on the store's file system."""
        return self._build

    def get(self, kind: str, key: str) -> Entry | None:
        """The entry, or None when there is none.

        CorruptError when it is damaged as far as sizes and times show; contents are `verify`'s work.
        """
        path = self._directory(kind) / _checked(key, "key")
        if not path.is_dir():
            return None
        record = _read_record(path)
        if (record.kind, record.key) != (kind, key):
            raise CorruptError(f"{path / _RECORD} describes {record.kind} {record.key}", hint=_HINT_AGAIN)
        for name, expected in record.files.items():
            _check_stat(path / name, expected)
        return Entry(path, record)

    def current(self, kind: str) -> Entry:
        """The entry in use. SetupError when there is none, CorruptError when it is damaged (see `get`)."""
        link = self._directory(kind) / _CURRENT
        try:
            key = link.readlink().name
        except OSError as error:
            raise SetupError(f"{kind} is not there", hint=_HINT) from error
        entry = self.get(kind, key)
        if entry is None:
            raise SetupError(f"{kind} {key} is not there", hint=_HINT)
        return entry

    def verified(self, kind: str) -> Entry:
        """The entry in use, every byte of it hashed; a damaged one is set aside for the next set-up to replace."""
        try:
            entry = self.current(kind)
            self.verify(entry)
        except CorruptError:
            with suppress(OSError):
                self._quarantine(kind, (self._directory(kind) / _CURRENT).readlink().name)
            raise
        return entry

    def verify(self, entry: Entry) -> None:
        """Hash every file; CorruptError names the first that differs from what was stored."""
        for name, expected in entry.record.files.items():
            path = entry.path / name
            try:
                found = hash_file(path)
            except OSError as error:
                raise CorruptError(f"{path} cannot be read: {error.strerror}", field=name, hint=_HINT_AGAIN) from error
            if found != expected.sha256:
                raise CorruptError(f"{path} does not match the hash it was stored under", field=name, hint=_HINT_AGAIN)

    def build(
        self,
        kind: str,
        key: str,
        builder: Callable[[Path], Mapping[str, str] | None],
        *,
        inputs: Mapping[str, str] | None = None,
        needed_bytes: int = 0,
    ) -> Entry:
        """The entry `kind`/`key`, made by `builder` unless it is there, and made the current one.

        `builder` fills the empty directory it is given with plain files and returns the entry's meta. It runs
        under the kind's lock. `needed_bytes` is free space to ask for first. DiskFullError when space runs out.
        """
        directory = self._directory(kind)
        _checked(key, "key")
        with self.locked(kind):
            entry = self._usable(kind, key)
            if entry is None:
                self._sweep(kind)
                self._require_space(needed_bytes)
                entry = self._make(directory, kind, key, builder, inputs or {})
            if not _points_to(directory / _CURRENT, key):
                _point(directory / _CURRENT, key)
            return entry

    @contextmanager
    def locked(self, kind: str) -> Iterator[None]:
        """Hold the lock of one kind. Not re-entrant."""
        directory = self._directory(kind)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._build.mkdir(mode=0o700, parents=True, exist_ok=True)
        with ExitStack() as stack:
            try:
                stack.enter_context(lock_file(directory / _LOCK, timeout_s=_LOCK_TIMEOUT_S))
            except TimeoutError as error:
                raise SetupError(f"another process has been making {kind} for an hour", retryable=True) from error
            yield

    def quarantine(self, entry: Entry) -> None:
        """Take the entry out of the store; its remains stay in `build/` until the next build of its kind."""
        self._quarantine(entry.kind, entry.key)

    def list(self) -> list[Entry]:
        """Every undamaged entry, by kind and key."""
        found = []
        for path in sorted(self._store.glob("*/*/" + _RECORD)):
            if path.parent.is_symlink():
                continue
            with suppress(CorruptError, SetupError):
                entry = self.get(path.parent.parent.name, path.parent.name)
                if entry is not None:
                    found.append(entry)
        return found

    def remove(self, entry: Entry) -> None:
        """Delete the entry; `current` goes with it when it named this one. NotFoundError when it is not there."""
        with self.locked(entry.kind):
            directory = self._directory(entry.kind)
            if not (directory / entry.key).is_dir():
                raise NotFoundError(f"{entry.kind} {entry.key} is not in the store")
            if _points_to(directory / _CURRENT, entry.key):
                (directory / _CURRENT).unlink()
            self._quarantine(entry.kind, entry.key)
            self._sweep(entry.kind)

    def _directory(self, kind: str) -> Path:
        return self._store / _checked(kind, "kind")

    def _usable(self, kind: str, key: str) -> Entry | None:
        """As `get`, but what looks damaged is hashed, and replaced when it is."""
        try:
            return self.get(kind, key)
        except CorruptError:
            self._quarantine(kind, key)
            return None

    def _quarantine(self, kind: str, key: str) -> None:
        grave = self._aside(kind) / f"{key}.corrupt"
        remove_tree(grave)
        with suppress(FileNotFoundError):
            (self._directory(kind) / key).rename(grave)

    def _sweep(self, kind: str) -> None:
        """Remove what earlier builds of this kind left. The lock is held, so all of it is stale."""
        for path in self._aside(kind).iterdir():
            remove_tree(path)

    def _aside(self, kind: str) -> Path:
        """Where entries of this kind are built; everything in it is litter unless the lock's holder made it."""
        path = self._build / kind
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path

    def _require_space(self, needed_bytes: int) -> None:
        free = shutil.disk_usage(self._build).free
        if free < needed_bytes:
            raise _disk_full(self._build, needed_bytes)

    def _make(
        self,
        directory: Path,
        kind: str,
        key: str,
        builder: Callable[[Path], Mapping[str, str] | None],
        inputs: Mapping[str, str],
    ) -> Entry:
        aside = self._aside(kind) / f"{key}.{os.getpid()}"
        aside.mkdir(mode=0o700)
        try:
            meta = dict(builder(aside) or {})
            record = _seal(aside, Record(kind=kind, key=key, files={}, meta=meta, inputs=dict(inputs)))
            target = directory / key
            aside.rename(target)
            _sync(directory)
            return Entry(target, record)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise _disk_full(self._build, 0) from error
            raise
        finally:
            remove_tree(aside)


def hash_file(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def remove_tree(path: Path) -> None:
    """Delete a directory tree, read-only parts included; nothing happens when it is not there."""
    if not path.is_dir() or path.is_symlink():
        with suppress(FileNotFoundError):
            path.unlink()
        return
    with suppress(PermissionError):
        path.chmod(0o700)
    for parent, directories, _ in os.walk(path):
        for name in directories:
            child = Path(parent, name)
            if not child.is_symlink():
                with suppress(PermissionError):
                    child.chmod(0o700)
    shutil.rmtree(path, ignore_errors=True)


def _checked(name: str, field: str) -> str:
    if not _NAME.fullmatch(name) or name == _CURRENT:
        raise SetupError(f"{name!r} is not a name the store takes", field=field)
    return name


def _read_record(path: Path) -> Record:
    try:
        with (path / _RECORD).open("rb") as stream:
            data = stream.read(_RECORD_MAX_BYTES + 1)
        if len(data) > _RECORD_MAX_BYTES:
            raise CorruptError(f"{path / _RECORD} is too large", hint=_HINT_AGAIN)
        record = msgspec.json.decode(data, type=Record)
    except (OSError, msgspec.DecodeError) as error:
        raise CorruptError(f"{path / _RECORD} cannot be read: {error}", hint=_HINT_AGAIN) from error
    if bad := [name for name in record.files if "/" in name or name in {"", ".", ".."}]:
        raise CorruptError(f"{path / _RECORD} names a file outside its directory: {bad[0]!r}", hint=_HINT_AGAIN)
    return record


def _check_stat(path: Path, expected: FileRecord) -> None:
    """Compare size and time; where only the time differs the content decides."""
    try:
        found = path.lstat()
    except OSError as error:
        raise CorruptError(f"{path} is missing", field=path.name, hint=_HINT_AGAIN) from error
    if found.st_size != expected.size:
        raise CorruptError(
            f"{path} has {found.st_size} bytes, expected {expected.size}", field=path.name, hint=_HINT_AGAIN
        )
    if not _same_time(found.st_mtime_ns, expected.mtime_ns) and hash_file(path) != expected.sha256:
        raise CorruptError(f"{path} does not match the hash it was stored under", field=path.name, hint=_HINT_AGAIN)


def _same_time(found_ns: int, expected_ns: int) -> bool:
    """A store that was copied into a file system image has whole seconds only."""
    return found_ns in (expected_ns, expected_ns // 10**9 * 10**9)


def _seal(aside: Path, record: Record) -> Record:
    """Hash, flush and write-protect every file, and write the record last."""
    files = {}
    for path in sorted(aside.iterdir()):
        if path.is_symlink() or not path.is_file():
            raise SetupError(f"{record.kind}: {path.name} is not a plain file")
        path.chmod(0o555 if path.stat().st_mode & 0o100 else 0o444)
        _sync(path)
        status = path.stat()
        files[path.name] = FileRecord(hash_file(path), status.st_size, status.st_mtime_ns)
    created = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    record = msgspec.structs.replace(record, files=files, created=created)
    (aside / _RECORD).write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=1))
    (aside / _RECORD).chmod(0o444)
    _sync(aside / _RECORD)
    _sync(aside)
    return record


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _points_to(link: Path, key: str) -> bool:
    try:
        return str(link.readlink()) == key
    except OSError:
        return False


def _point(link: Path, key: str) -> None:
    """Make `link` name `key`, in one step."""
    fresh = link.with_name(f".{_CURRENT}.{os.getpid()}")
    with suppress(FileNotFoundError):
        fresh.unlink()
    fresh.symlink_to(key)
    fresh.replace(link)
    _sync(link.parent)


def _disk_full(path: Path, needed_bytes: int) -> DiskFullError:
    free = shutil.disk_usage(path).free >> 20
    needed = f"about {needed_bytes >> 20} MiB needed, " if needed_bytes else ""
    return DiskFullError(
        f"no space left in {path}: {needed}{free} MiB free",
        hint="free some space, or set MAYFLY_HOME to a directory on another disk",
    )
