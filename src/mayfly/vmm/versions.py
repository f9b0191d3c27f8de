"""What each Firecracker version can do, and which are refused or warned about.

Source: Firecracker's release notes and API descriptions, its issues #5969 and #6100, and CVE-2026-1386.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from mayfly.errors import SetupError, VmmError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "OLDEST_VERSION",
    "FirecrackerVersion",
    "check_version",
    "known_load_fields",
    "load_request",
    "parse_version",
    "resume_after_pause_works",
    "snapshot_format",
]


class FirecrackerVersion(NamedTuple):
    """A release, ordered as numbers."""

    major: int
    minor: int
    patch: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"


OLDEST_VERSION = FirecrackerVersion(1, 12, 0)
"""The oldest that is used at all."""
_SUPPORTED = FirecrackerVersion(1, 15, 0)
_RECOMMENDED = FirecrackerVersion(1, 16, 1)
_VSOCK_DEAD_AFTER_RESTORE = FirecrackerVersion(1, 16, 0)
_VERSION = re.compile(r"(?:Firecracker |jailer |)v?(\d{1,4})\.(\d{1,4})\.(\d{1,4})\b", re.IGNORECASE)


def parse_version(text: str) -> FirecrackerVersion:
    """Read the first line of `firecracker --version`, or a bare version. SetupError when it is neither."""
    match = _VERSION.match(text.strip()[:200])
    if match is None:
        raise SetupError(f"cannot read a Firecracker version from {text.strip()[:60]!r}")
    return FirecrackerVersion(*(int(part) for part in match.groups()))


def check_version(version: FirecrackerVersion) -> tuple[str, ...]:
    """Warnings for a usable version, in sentences; SetupError for one that must not be used."""
    if version < OLDEST_VERSION:
        raise SetupError(f"Firecracker {version} is too old", hint=f"{OLDEST_VERSION} or newer is needed")
    if version == _VSOCK_DEAD_AFTER_RESTORE:
        raise SetupError(
            f"Firecracker {version} is refused: vsock does not work after a restore (#5969)",
            hint=f"use {_RECOMMENDED} or newer",
        )
    warnings = []
    if version < _SUPPORTED:
        warnings.append(f"Firecracker {version} is past its end of life; use {_RECOMMENDED} or newer on real hosts")
    if version < FirecrackerVersion(1, 13, 2) or version == FirecrackerVersion(1, 14, 0):
        warnings.append(
            f"the jailer of {version} can be made to overwrite files through symbolic links (CVE-2026-1386)"
        )
    return tuple(warnings)


_LOAD_FIELDS = frozenset(
    {"snapshot_path", "mem_backend", "mem_file_path", "enable_diff_snapshots", "resume_vm", "network_overrides"}
)
"""What every usable version takes in a load request, which refuses fields that it does not know."""
_LATER_FIELDS: dict[str, tuple[FirecrackerVersion, ...]] = {
    "track_dirty_pages": (FirecrackerVersion(1, 13, 0),),
    "clock_realtime": (
        FirecrackerVersion(1, 14, 4),
        FirecrackerVersion(1, 15, 1),
        FirecrackerVersion(1, 16, 0),
    ),
    "vsock_override": (FirecrackerVersion(1, 16, 0),),
    "huge_pages": (FirecrackerVersion(1, 17, 0),),
}
"""Field → since when: a patch of each minor release that got it later, then the first that always had it."""
_FORMATS = ((FirecrackerVersion(1, 16, 0), 10), (FirecrackerVersion(1, 15, 0), 9), (FirecrackerVersion(1, 13, 0), 8))
_OLDEST_FORMAT = 6
_PAUSE_BREAKS_VSOCK = {FirecrackerVersion(1, 16, 0), FirecrackerVersion(1, 16, 1)}


def snapshot_format(version: FirecrackerVersion) -> int:
    """Number of the snapshot format that this version writes and reads; snapshots of another are of no use to it."""
    return next((number for since, number in _FORMATS if version >= since), _OLDEST_FORMAT)


def known_load_fields(version: FirecrackerVersion) -> frozenset[str]:
    """The fields that `PUT /snapshot/load` of this version takes."""
    return _LOAD_FIELDS | {name for name, since in _LATER_FIELDS.items() if _has(version, since)}


def _has(version: FirecrackerVersion, since: tuple[FirecrackerVersion, ...]) -> bool:
    return version >= since[-1] or any(version[:2] == first[:2] and version >= first for first in since)


def load_request(version: FirecrackerVersion, *, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The body that restores `/vmstate` and `/memory` of a jail and leaves the machine paused.

    The guest's wall clock is set right where the version can; it is greeted with the time in any case. `options`
    are further fields that the caller cannot do without: VmmError names one that this version does not know.
    """
    body: dict[str, Any] = {
        "snapshot_path": "/vmstate",
        "mem_backend": {"backend_type": "File", "backend_path": "/memory"},
        "resume_vm": False,
    }
    known = known_load_fields(version)
    if "clock_realtime" in known:
        body["clock_realtime"] = True
    for name, value in (options or {}).items():
        if name not in known:
            raise VmmError(f"Firecracker {version} does not know {name} when it loads a snapshot", field=name)
        body[name] = value
    return body


def resume_after_pause_works(version: FirecrackerVersion) -> bool:
    """Whether a machine that was paused and resumed in place can still be reached from the host by vsock (#6100)."""
    return version not in _PAUSE_BREAKS_VSOCK
