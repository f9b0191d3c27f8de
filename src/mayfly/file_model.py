"""The values that travel about what is in a sandbox: its files, what it uses, what was done in it."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

__all__ = ["FileEvent", "FileInfo", "FileKind", "FilePath", "LogEntry", "MakeDirectory", "Metrics", "RenameFile"]

FileKind = Literal["file", "directory", "link", "fifo", "socket", "device"]
FilePath = Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]
"""A path in the sandbox; one that is not absolute is below the user's home directory."""


class FileInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A file or directory in the sandbox. `modified_at` is in seconds since 1970; `target` is a link's."""

    path: str
    name: str
    kind: FileKind
    size: int
    mode: int
    modified_at: float
    uid: int = 0
    gid: int = 0
    target: str | None = None


class MakeDirectory(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A directory to make; with `parents` those above it too, and one that is there is no error."""

    path: FilePath
    parents: bool = True


class RenameFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A new name for a file or directory; a file that has it is replaced."""

    path: FilePath
    to: FilePath


class FileEvent(msgspec.Struct, frozen=True, kw_only=True, tag="file", tag_field="event"):
    """Something happened below a watched directory. `ready`: it is watched now; `overflow`: events were lost."""

    kind: Literal["ready", "created", "modified", "removed", "renamed", "attributes", "overflow"]
    path: str
    is_directory: bool = False


class Metrics(msgspec.Struct, frozen=True, kw_only=True):
    """What the sandbox uses now, as the guest says it: not to be billed by."""

    cpus: int = 0
    cpu_ms: float = 0.0
    load_1m: float = 0.0
    mem_total_bytes: int = 0
    mem_used_bytes: int = 0
    disk_total_bytes: int = 0
    disk_used_bytes: int = 0
    processes: int = 0
    uptime_s: float = 0.0


class LogEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a sandbox's log: what was done in it, and what code in it printed."""

    offset: int
    at: str
    source: Literal["sandbox", "run", "command"]
    text: str
    stream: Literal["", "stdout", "stderr"] = ""
    id: str = ""
