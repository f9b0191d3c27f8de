"""Makes Debian root file systems with mmdebstrap, as root or as a plain user."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mayfly.errors import SetupError
from mayfly.images.commands import run_tool

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SOURCE_DATE_EPOCH", "SUITE", "Debian", "extract_package", "make_root_tar", "namespace_command"]

SUITE = "trixie"
SOURCE_DATE_EPOCH = "1735689600"
"""Time stamp of everything in an image: 2025-01-01, so that equal input gives equal files."""

_TIMEOUT_S = 1800.0

_NO_DOCUMENTATION = (
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/lintian/*",
    "path-exclude=/usr/share/bug/*",
    "path-exclude=/usr/share/bash-completion/*",
    "path-exclude=/usr/share/pixmaps/*",
    "path-exclude=/usr/share/applications/*",
)

_COMPILE_NOTHING = (
    'chroot "$1" dpkg-divert --quiet --local --rename --add /usr/bin/py3compile && ln -s true "$1/usr/bin/py3compile"'
)


@dataclass(frozen=True)
class Debian:
    """What to install: packages beside Debian's essential ones, and a shell script that finishes the tree.

    The script runs as `sh -eu` outside the tree, as its root user, with the tree's path in `$root`, a tree that
    can be run with `chroot`, and apt set up for it (`$MMDEBSTRAP_APT_CONFIG`).
    """

    packages: tuple[str, ...]
    finish: str
    copies: tuple[tuple[Path, str], ...] = ()
    """Files and directories from outside, each put into a directory of the tree before the script runs."""
    paths: tuple[str, ...] = ()
    """What is unpacked, as dpkg's `path-exclude=` and `path-include=`: the last that fits a path counts."""
    compile_python: bool = True
    """False where the script compiles all Python itself, so that the packages need not."""


def make_root_tar(debian: Debian, target: Path, *, detail: Callable[[str], None] | None = None) -> None:
    """Write the root file system as a tar file to `target`.

    SetupError says what failed; apt checks Debian's signatures on everything that is installed.
    """
    with target.open("wb") as stream:
        run_tool(
            [
                *(*_mmdebstrap(), "--variant=essential", "--format=tar"),
                f"--include={','.join(debian.packages)}",
                *(f"--dpkgopt={option}" for option in _NO_DOCUMENTATION),
                *(f"--dpkgopt={option}" for option in debian.paths),
                *(() if debian.compile_python else (f"--essential-hook={_COMPILE_NOTHING}",)),
                '--aptopt=Acquire::Languages "none"',
                '--aptopt=APT::Install-Recommends "false"',
                '--aptopt=Acquire::Retries "3"',
                *(f'--customize-hook=mkdir -p "$1"{into}' for _, into in debian.copies),
                *(f"--customize-hook=copy-in {shlex.quote(str(source))} {into}" for source, into in debian.copies),
                # by way of the environment: on failure mmdebstrap repeats the whole hook
                '--customize-hook=root=$1 exec sh -eu -c "$MAYFLY_FINISH"',
                *(SUITE, "-"),
            ],
            timeout_s=_TIMEOUT_S,
            name="mmdebstrap",
            stdout=stream,
            env={"SOURCE_DATE_EPOCH": SOURCE_DATE_EPOCH, "MAYFLY_FINISH": debian.finish},
            on_line=None if detail is None else lambda line: detail(line.removeprefix("I: ")[:80]),
        )


def extract_package(package: str, suite: str, target: Path, *, detail: Callable[[str], None] | None = None) -> None:
    """Write the files of a Debian package (and of what it depends on) as a tar file; none of it is run."""
    with target.open("wb") as stream:
        run_tool(
            [
                *(*_mmdebstrap(), "--variant=extract", "--format=tar"),
                *(f"--include={package}", '--aptopt=Acquire::Languages "none"'),
                *('--aptopt=APT::Install-Recommends "false"', suite, "-"),
            ],
            timeout_s=_TIMEOUT_S,
            name="mmdebstrap",
            stdout=stream,
            on_line=None if detail is None else lambda line: detail(line.removeprefix("I: ")[:80]),
        )


def namespace_command(script: str) -> list[str]:
    """Command line that runs a shell script as root of a tree: for real, or in a user namespace of ours."""
    shell = ["sh", "-eu", "-c", script]
    if os.geteuid() == 0:
        return shell
    _require_subordinate_ids()
    return ["unshare", "--map-root-user", "--map-auto", "--", *shell]


def _mmdebstrap() -> list[str]:
    """How to start mmdebstrap: as root in a mount namespace of its own, so that no kill can leave its mounts behind."""
    if os.geteuid() != 0:
        _require_subordinate_ids()
        return ["mmdebstrap", "--mode=unshare"]
    prefix = ["unshare", "--mount", "--propagation", "private", "--"]
    try:
        run_tool([*prefix, "true"], timeout_s=10.0)
    except SetupError:
        prefix = []  # a container that may not: mmdebstrap then goes without mounts
    return [*prefix, "mmdebstrap", "--mode=root"]


def _require_subordinate_ids() -> None:
    """SetupError in one sentence, instead of the tools' own words, when a plain user cannot own other uids."""
    import pwd

    try:
        name = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        name = str(os.geteuid())
    wanted = (f"{name}:", f"{os.geteuid()}:")
    for path in ("/etc/subuid", "/etc/subgid"):
        try:
            with Path(path).open(encoding="utf-8", errors="replace") as stream:
                lines = stream.read(1 << 20).splitlines()
        except OSError:
            lines = []
        if not any(line.startswith(wanted) for line in lines):
            raise SetupError(
                f"user {name} has no subordinate ids in {path}, so images cannot be made without root",
                hint=f"as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {shlex.quote(name)}",
            )
