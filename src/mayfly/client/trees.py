"""Directories and globs, up to a sandbox and down from it.

What a sandbox lists is hostile: its names are taken apart and checked, so that nothing is written outside of the
directory that the caller named.
"""

from __future__ import annotations

import fnmatch
import glob
import inspect
import posixpath
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from mayfly.errors import FileMissingError, FileSystemError, InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from mayfly.client.files import AsyncFiles
    from mayfly.sandbox_model import FileInfo

__all__ = ["copy_down", "copy_up", "inside"]

_DEPTH = 32
_ENTRIES_MAX = 100_000
_GLOB = frozenset("*?[")


async def copy_up(
    files: AsyncFiles, local: str | Path, remote: str, on_file: Callable[[str], object] | None
) -> Sequence[str]:
    """See `AsyncFiles.upload`."""
    sources = await anyio.to_thread.run_sync(_local_sources, str(local))
    into = len(sources) > 1 or _names_directory(remote) or await _is_directory(files, remote)
    written = []
    for source in sources:
        target = posixpath.join(remote, source.name) if into else remote
        if await anyio.to_thread.run_sync(source.is_dir):
            await files.make_dir(target)
        for path, below in await anyio.to_thread.run_sync(_local_tree, source):
            goal = posixpath.join(target, *below) if below else target
            if await anyio.to_thread.run_sync(path.is_dir):
                await files.make_dir(goal)
                continue
            mode = path.stat().st_mode & 0o777
            with path.open("rb") as stream:
                await files.write(goal, stream, mode=mode)
            written.append(goal)
            await _tell(on_file, goal)
    return written


def _local_sources(pattern: str) -> list[Path]:
    if Path(pattern).exists() or not _GLOB & set(pattern):
        found = [Path(pattern)]
    else:
        found = [Path(name) for name in sorted(glob.glob(pattern, recursive=True))]  # noqa: PTH207 - absolute ones too
    for path in found:
        if not path.is_file() and not path.is_dir():
            kind = "is no regular file or directory" if path.exists() else "does not exist"
            raise InvalidRequestError(f"{str(path)!r} {kind} here", field="local")
    if not found:
        raise InvalidRequestError(f"nothing here matches {pattern!r}", field="local")
    return [path.absolute() if path.name in {"", ".."} else path for path in found]


def _local_tree(source: Path) -> list[tuple[Path, tuple[str, ...]]]:
    """The files and directories to copy, each with its way below `source`; links to files are followed."""
    if source.is_file():
        return [(source, ())]
    found = list(_walk(source, ()))
    if len(found) > _ENTRIES_MAX:
        raise InvalidRequestError(f"{str(source)!r} has more than {_ENTRIES_MAX:,} files", field="local")
    return found


def _walk(directory: Path, below: tuple[str, ...]) -> Iterator[tuple[Path, tuple[str, ...]]]:
    for path in sorted(directory.iterdir()):
        here = (*below, path.name)
        if path.is_dir() and not path.is_symlink():
            yield path, here
            yield from _walk(path, here)
        elif path.is_file():
            yield path, here


def _names_directory(path: str) -> bool:
    return path.endswith("/") or posixpath.basename(path) in {"", ".", ".."}


async def _is_directory(files: AsyncFiles, path: str) -> bool:
    try:
        return (await files.info(path)).kind == "directory"
    except FileMissingError:
        return False


async def copy_down(
    files: AsyncFiles, remote: str, local: str | Path, on_file: Callable[[str], object] | None
) -> Sequence[Path]:
    """See `AsyncFiles.download`."""
    sources = await _remote_sources(files, remote)
    goal = Path(local)
    into = len(sources) > 1 or str(local).endswith("/") or await anyio.to_thread.run_sync(goal.is_dir)
    written: list[Path] = []
    for source in sources:
        target = inside(goal, (source.name,)) if into else goal
        if source.kind != "directory":
            written.append(await _fetch(files, source.path, target, on_file))
            continue
        target.mkdir(parents=True, exist_ok=True)
        for entry, below in await _remote_tree(files, source.path):
            place = inside(target, below)
            if entry.kind == "directory":
                place.mkdir(parents=True, exist_ok=True)
            elif entry.kind == "file":
                written.append(await _fetch(files, entry.path, place, on_file))
    return written


async def _remote_sources(files: AsyncFiles, pattern: str) -> list[FileInfo]:
    if not _GLOB & set(pattern):
        return [await files.info(pattern)]
    try:
        return [await files.info(pattern)]
    except FileMissingError:
        pass
    directory, _, name = pattern.rpartition("/")
    if _GLOB & set(directory):
        raise InvalidRequestError("a glob may be in the last part of a sandbox's path only", field="remote")
    listed = await files.listing(directory or ("/" if pattern.startswith("/") else "."))
    found = [entry for entry in listed.files if fnmatch.fnmatchcase(_last(entry.path), name)]
    kept = [entry for entry in found if entry.kind in {"file", "directory"}]
    if not kept:
        raise FileMissingError(f"nothing in the sandbox matches {pattern!r}", field="remote")
    return kept


async def _remote_tree(files: AsyncFiles, root: str) -> list[tuple[FileInfo, tuple[str, ...]]]:
    listed = await files.listing(root, depth=_DEPTH)
    if listed.truncated:
        raise FileSystemError(f"{root!r} has more files than can be listed; copy its parts", field="remote")
    prefix = root.rstrip("/") + "/"
    found = []
    for entry in listed.files:
        if not entry.path.startswith(prefix):
            raise FileSystemError(f"the sandbox listed {entry.path!r}, which is not in {root!r}", field="remote")
        found.append((entry, tuple(entry.path.removeprefix(prefix).split("/"))))
    return found


def inside(directory: Path, below: Sequence[str]) -> Path:
    """`directory` with these names below it; FileSystemError for one that could lead out of it."""
    for name in below:
        if name in {"", ".", ".."} or "/" in name or "\0" in name:
            raise FileSystemError(
                f"the sandbox has a file with the name {name!r}, which cannot be copied", field="remote"
            )
    return directory.joinpath(*below)


def _last(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]


async def _fetch(files: AsyncFiles, remote: str, target: Path, on_file: Callable[[str], object] | None) -> Path:
    """The file's content, under a name of its own until it is whole."""
    partial = target.with_name(f".{target.name[:200]}.part")
    await anyio.to_thread.run_sync(partial.parent.mkdir, 0o777, True, True)
    try:
        async with files.open_stream(remote) as chunks:
            with partial.open("wb") as stream:
                async for chunk in chunks:
                    await _written(stream, chunk)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    await _tell(on_file, str(target))
    return target


async def _tell(on_file: Callable[[str], object] | None, path: str) -> None:
    if on_file is not None:
        outcome = on_file(path)
        if inspect.isawaitable(outcome):
            await outcome


async def _written(stream: Any, chunk: bytes) -> None:
    """Beside the loop where it is much: a slow disk is not to stop everything else."""
    await anyio.to_thread.run_sync(stream.write, chunk)
