"""The sandbox's files, with its user's rights: what is there, and how it is opened.

The agent is root, and files are its user's, who may have put anything anywhere. So every access is made with the
user's rights, what is opened is looked at before it is read or written, and nothing waits for a FIFO or a device.
"""

from __future__ import annotations

import errno
import os
import stat

from mayfly.agent import kernel
from mayfly.agent.fields import RequestError, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from mayfly.agent.process import Settings

__all__ = [
    "AsUser",
    "describe",
    "make_directories",
    "open_for_reading",
    "open_for_writing",
    "path_of",
    "refused",
    "walk",
]

_PATH_MAX_BYTES = 4095
_ENTRIES_MAX = 10_000
_CODES = {
    errno.ENOENT: "not_found",
    errno.EEXIST: "exists",
    errno.ENOTEMPTY: "exists",
    errno.EACCES: "permission",
    errno.EPERM: "permission",
    errno.EROFS: "permission",
    errno.ENOSPC: "no_space",
    errno.EDQUOT: "no_space",
}
_KINDS = (
    (stat.S_ISREG, "file"),
    (stat.S_ISDIR, "directory"),
    (stat.S_ISLNK, "link"),
    (stat.S_ISFIFO, "fifo"),
    (stat.S_ISSOCK, "socket"),
)


class AsUser:
    """Inside the block files are accessed with the rights of the sandbox's user; OSError becomes RequestError."""

    def __init__(self, settings: Settings) -> None:
        self._uid = settings.uid

    def __enter__(self) -> None:
        if self._uid is not None:
            kernel.set_file_user(self._uid, self._uid)

    def __exit__(self, _: object, error: object, __: object) -> None:
        if self._uid is not None:
            kernel.set_file_user(0, 0)
        if isinstance(error, OSError):
            raise refused(error) from None


def refused(error: OSError) -> RequestError:
    """What the system said, as the protocol says it."""
    return RequestError(_CODES.get(error.errno or 0, "file_error"), os.strerror(error.errno or errno.EIO))


def path_of(settings: Settings, args: dict[str, Any], field: str = "path") -> str:
    """The absolute path under that field; relative ones begin at home. Raises RequestError."""
    path = os.path.join(settings.home, text(args, field, _PATH_MAX_BYTES))
    try:
        size = len(path.encode())
    except UnicodeEncodeError:
        raise RequestError("bad_request", f"{field}: expected text that has a form in UTF-8") from None
    if size > _PATH_MAX_BYTES:
        raise RequestError("bad_request", f"{field}: expected a path of at most {_PATH_MAX_BYTES} bytes")
    return "/" + "/".join(part for part in path.split("/") if part not in ("", "."))


def describe(path: str) -> dict[str, object]:
    """What is at the path itself. Raises OSError."""
    found = os.lstat(path)
    kind = next((name for is_it, name in _KINDS if is_it(found.st_mode)), "device")
    return {
        "path": _shown(path),
        "name": _shown(os.path.basename(path.rstrip("/")) or "/"),
        "kind": kind,
        "size": found.st_size,
        "mode": stat.S_IMODE(found.st_mode),
        "modified_at": found.st_mtime,
        "uid": found.st_uid,
        "gid": found.st_gid,
        "target": _shown(os.readlink(path)) if kind == "link" else None,
    }


def _shown(path: str) -> str:
    """Bytes that are no UTF-8 cannot travel as text; each becomes U+FFFD."""
    return os.fsencode(path).decode("utf-8", "replace")


def _look(path: str) -> tuple[int, os.stat_result]:
    """A descriptor that only names the file, links followed, and what it is. Raises OSError, RequestError."""
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        found = os.fstat(fd)
        why = None
        if stat.S_ISDIR(found.st_mode):
            why = RequestError("not_a_file", "this is a directory")
        elif not stat.S_ISREG(found.st_mode):
            why = RequestError("not_a_file", "this is no regular file")
        elif os.readlink(f"/proc/self/fd/{fd}").startswith(f"/proc/{os.getpid()}/"):
            why = RequestError("permission", "this is a file of the agent")
    except BaseException:
        os.close(fd)
        raise
    if why is not None:
        os.close(fd)
        raise why
    return fd, found


def open_for_reading(path: str, offset: int) -> tuple[int, int]:
    """A descriptor at `offset`, and the file's size. Raises OSError, and RequestError for what is no regular file."""
    named, found = _look(path)
    try:
        fd = os.open(f"/proc/self/fd/{named}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    finally:
        os.close(named)
    os.lseek(fd, offset, os.SEEK_SET)
    return fd, found.st_size


def open_for_writing(path: str, *, append: bool) -> int:
    """A descriptor of the file, made or emptied. Raises OSError, and RequestError for what is no regular file."""
    flags = os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    try:
        named, _ = _look(path)
    except FileNotFoundError:
        make_directories(os.path.dirname(path))
        return os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        return os.open(f"/proc/self/fd/{named}", flags | (os.O_APPEND if append else os.O_TRUNC))
    finally:
        os.close(named)


def make_directories(path: str) -> None:
    """Makes what is missing of the path; all of it there is fine. Raises OSError."""
    missing: list[str] = []
    while path not in ("", "/") and not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    for each in reversed(missing):
        try:
            os.mkdir(each, 0o755)
        except FileExistsError:
            if not os.path.isdir(each):
                raise


def walk(path: str, depth: int) -> Iterator[dict[str, object]]:
    """What is below the directory, sorted; links to directories are not followed. One step an entry.

    Raises OSError for the directory itself; what is gone or closed deeper down is left out.
    """
    count = 0
    pending = [(path, depth)]
    while pending:
        directory, left = pending.pop()
        try:
            names = sorted(os.listdir(directory))
        except OSError:
            if directory == path:
                raise
            continue
        below: list[tuple[str, int]] = []
        for name in names:
            count += 1
            if count > _ENTRIES_MAX:
                raise RequestError("file_error", f"more than {_ENTRIES_MAX} entries")
            try:
                entry = describe(os.path.join(directory, name))
            except OSError:
                continue
            yield entry
            if entry["kind"] == "directory" and left > 1:
                below.append((os.path.join(directory, name), left - 1))
        pending += reversed(below)
