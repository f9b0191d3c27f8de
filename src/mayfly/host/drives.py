"""The emulated host's drives that are made here: its state disk, seeded with artefacts, and the code drive."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import shutil
import subprocess
import tarfile
from typing import TYPE_CHECKING, Any

import msgspec

from mayfly.errors import DiskFullError, EmulatedHostError, SetupError
from mayfly.host.code import package_files
from mayfly.host.ext4 import change_ext4

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mayfly.host.paths import StatePaths

__all__ = ["ensure_state_disk", "write_code_tar"]

_FORMAT = 1
_DISK_SIZE = "16G"
_SECTOR = 512
_MKE2FS_DEADLINE_S = 300
_LIST_MAX_BYTES = 65536


def ensure_state_disk(paths: StatePaths, entries: Sequence[Path], later: Sequence[Path] = ()) -> Path:
    """The ext4 image that holds `entries` (store directories `kind/key`) as its store; made when it is missing.

    It outlives the emulated host and collects what the node inside keeps. Images of other entries are removed.
    Entries in `later` are put into a disk that is there already, and taken out again when they are no longer given.
    Call it only while no emulated host of this state runs.
    """
    names = sorted(str(entry.relative_to(paths.store)) for entry in entries)
    key = hashlib.sha256("\n".join([str(_FORMAT), *names]).encode()).hexdigest()[:16]
    disk = paths.host / f"state-{key}.img"
    listed = disk.with_suffix(".later")
    for other in paths.host.glob("state-*"):
        if other not in (disk, listed):
            other.unlink()
    wanted = {str(entry.relative_to(paths.store)): entry for entry in later}
    there = _listed(listed)
    if disk.exists() and there != set(wanted):
        listed.unlink(missing_ok=True)  # until the end it is not known what is in it
        try:
            change_ext4(disk, [wanted[name] for name in sorted(wanted.keys() - there)], sorted(there - wanted.keys()))
        except EmulatedHostError:
            disk.unlink()  # what it collected can be made again
    if not disk.exists():
        _make_state_disk(paths, [*entries, *later], disk)
    listed.write_text("".join(f"{name}\n" for name in sorted(wanted)))
    return disk


def _listed(path: Path) -> set[str]:
    """Names of the entries that were put into a disk later, as its list says."""
    try:
        with path.open() as file:
            return set(file.read(_LIST_MAX_BYTES).split())
    except OSError:
        return set()


def _make_state_disk(paths: StatePaths, entries: Sequence[Path], disk: Path) -> None:
    seed = paths.build / f"state-disk.{os.getpid()}"
    half = disk.with_suffix(".half")
    shutil.rmtree(seed, ignore_errors=True)
    try:
        for entry in entries:
            target = seed / "store" / entry.relative_to(paths.store)
            shutil.copytree(entry, target, copy_function=_link_or_copy, symlinks=True)
            (target.parent / "current").symlink_to(entry.name)
        half.unlink(missing_ok=True)
        _mke2fs(half, seed)
        half.rename(disk)
    except OSError as error:
        if _is_disk_full(error):
            raise DiskFullError(f"no space left for the emulated host's disk in {paths.host}") from error
        raise EmulatedHostError(f"cannot make the emulated host's disk: {error}") from error
    finally:
        shutil.rmtree(seed, ignore_errors=True)
        half.unlink(missing_ok=True)


def _is_disk_full(error: OSError) -> bool:
    """Also for what `copytree` raises: one error that holds the words of all that failed."""
    return error.errno == errno.ENOSPC or os.strerror(errno.ENOSPC) in str(error)


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _mke2fs(target: Path, seed: Path) -> None:
    tool = shutil.which("mke2fs", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if tool is None:
        raise SetupError("mke2fs is not installed", hint="run `mayfly setup`")
    options = "root_owner=0:0,lazy_itable_init=1,lazy_journal_init=1,nodiscard"
    command = [tool, "-q", "-F", "-t", "ext4", "-m", "0", "-J", "size=16", "-E", options, "-d", str(seed)]
    done = subprocess.run(
        [*command, str(target), _DISK_SIZE],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_MKE2FS_DEADLINE_S,
        check=False,
    )
    if done.returncode != 0:
        words = done.stderr.decode("utf-8", "replace").strip()[-500:]
        if "No space left" in words:
            raise DiskFullError(f"no space left for the emulated host's disk: {words}")
        raise EmulatedHostError(f"mke2fs failed: {words}")


def write_code_tar(target: Path, config: dict[str, Any]) -> None:
    """Write the code drive: this package, its first process, and `config` as JSON; readable by the owner only."""
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for name, path in package_files():
                if name == "mayfly/host/boot_host.py":
                    tar.add(path, "boot_host.py", filter=_as_root)
                tar.add(path, f"src/{name}", filter=_as_root)
            encoded = msgspec.json.encode(config)
            member = tarfile.TarInfo("config.json")
            member.size, member.mode = len(encoded), 0o600
            tar.addfile(member, io.BytesIO(encoded))
        file.write(b"\0" * (-file.tell() % _SECTOR))


def _as_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member
