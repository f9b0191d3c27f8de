"""The emulated host's image: Debian with Python, a kernel with KVM, and the packages that a node needs.

The project's own code is not in it: that travels on a small disk of its own, so that a change of code rebuilds
nothing here.
"""

from __future__ import annotations

import hashlib
import re
import sys
import tarfile
from importlib import metadata
from importlib.resources import files
from typing import TYPE_CHECKING

from mayfly.errors import SetupError
from mayfly.images.commands import run_tool
from mayfly.images.debian import SOURCE_DATE_EPOCH, SUITE, Debian, make_root_tar, namespace_command
from mayfly.images.store import remove_tree

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mayfly.images.progress import Step
    from mayfly.images.store import Entry, Store

__all__ = ["KIND", "build_emulated_host", "emulated_host_key", "runtime_packages"]

KIND = "emulated-host"

_RECIPE = "2"
_PYTHON = "3.13"
"""CPython of the suite; wheels with native code are chosen for it."""

_PACKAGES = ("python3", "iproute2", "kmod", "squashfs-tools", "e2fsprogs", "mount", "tzdata", "zstd")
_NEEDED_BYTES = 1500 << 20
_PIP_TIMEOUT_S = 600.0
_EXT4_TIMEOUT_S = 600.0
_BOOT_FILES = ("vmlinuz", "initrd", "guest-initrd", "version")
_BOOT_FILE_MAX_BYTES = 256 << 20
_NOT_FOR_NODES = frozenset({"rich"})
"""Used on terminals only; left out because structlog imports it where it is, half the time of a node's start."""
_REQUIREMENT = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)")

_PACK = r"""
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT INT TERM HUP
tar -x -f "$1" -C "$tree" --numeric-owner --exclude='./dev/*' --exclude='./boot/*'
blocks=$(( $(du -s --block-size=4096 "$tree" | cut -f1) * 108 / 100 + 4096 ))
mke2fs -q -t ext4 -b 4096 -m 0 -O ^has_journal,^resize_inode -N 0 -U 6d617966-6c79-4d61-8966-6c796d617966 \
  -E hash_seed=6d617966-6c79-4d61-8966-6c796d617966,root_owner=0:0 -d "$tree" "$2" "$blocks"
"""


def runtime_packages() -> dict[str, str]:
    """Distributions that Mayfly needs to run, with the versions installed here: the whole closure, extras left out."""
    found: dict[str, str] = {}
    waiting = ["mayfly"]
    while waiting:
        for line in metadata.requires(waiting.pop()) or ():
            match = _REQUIREMENT.match(line)
            if match is None or "extra ==" in line:
                continue
            name = match[1].lower().replace("_", "-")
            if name in found or name in _NOT_FOR_NODES:
                continue
            try:
                found[name] = metadata.version(name)
            except metadata.PackageNotFoundError as error:
                if ";" not in line:
                    raise SetupError(f"the package {name} is not installed", hint="install Mayfly again") from error
                continue  # for another Python or platform
            waiting.append(name)
    return found


def emulated_host_key(packages: Mapping[str, str]) -> str:
    """What the image is made from, hashed: recipe, suite, Debian packages, scripts, Python packages with versions."""
    parts = [_RECIPE, SUITE, _PYTHON, *_PACKAGES, _PACK, _script()]
    parts += [f"{name}=={version}" for name, version in sorted(packages.items())]
    return hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:32]


def build_emulated_host(store: Store, *, step: Step | None = None) -> Entry:
    """The entry with `vmlinuz`, `initrd` and `root.ext4` (used read-only), built unless it is there.

    `guest-initrd` is a start disk with which the same kernel boots as a guest, to compare our own with.
    """
    packages = runtime_packages()

    def build(directory: Path) -> dict[str, str]:
        site, tar = directory / "site", directory / "root.tar"
        if step is not None:
            step.detail("Python packages")
        _download_site(packages, site)
        debian = Debian(_PACKAGES, f"SITE_IMPORTS={_imports(packages)}\n{_script()}", copies=((site, "/opt/mayfly"),))
        make_root_tar(debian, tar, detail=None if step is None else step.detail)
        if step is not None:
            step.detail("packing the file system")
        _take_boot_source(tar, directory)
        version = (directory / "version").read_text().strip()
        (directory / "version").unlink()
        _make_ext4(tar, directory / "root.ext4")
        tar.unlink()
        remove_tree(site)
        return {"suite": SUITE, "python": _PYTHON, "kernel": version}

    inputs = {"recipe": _RECIPE, "suite": SUITE, "packages": " ".join(_PACKAGES)}
    inputs |= {f"python:{name}": version for name, version in packages.items()}
    return store.build(KIND, emulated_host_key(packages), build, inputs=inputs, needed_bytes=_NEEDED_BYTES)


def _script() -> str:
    return (files("mayfly.images") / "data" / "emulated-finish.sh").read_text()


def _imports(packages: Mapping[str, str]) -> str:
    """What the finished image must be able to import: the direct requirements."""
    lines = [line for line in metadata.requires("mayfly") or () if "extra ==" not in line]
    names = {match[1].lower().replace("_", "-") for line in lines if (match := _REQUIREMENT.match(line))}
    return ",".join(sorted(name.replace("-", "_") for name in names & packages.keys()))


def _download_site(packages: Mapping[str, str], site: Path) -> None:
    """Put the packages into `site` as they have to be for the image's Python; nothing is built or run."""
    platforms = [f"--platform={name}_x86_64" for name in ("manylinux_2_28", "manylinux_2_17", "manylinux2014")]
    flags = "--quiet --disable-pip-version-check --no-deps --no-compile --only-binary=:all: --implementation=cp"
    run_tool(
        [
            *(sys.executable, "-m", "pip", "install", *flags.split(), *platforms),
            *(f"--python-version={_PYTHON}", "--target", str(site)),
            *(f"{name}=={version}" for name, version in sorted(packages.items())),
        ],
        timeout_s=_PIP_TIMEOUT_S,
        name="pip",
    )


def _take_boot_source(tar: Path, directory: Path) -> None:
    wanted = {f"boot/{name}": name for name in _BOOT_FILES}
    with tarfile.open(tar, "r:") as archive:
        for member in archive:
            name = wanted.pop(member.name.removeprefix("./"), None)
            stream = archive.extractfile(member) if name is not None and member.isfile() else None
            if name is None or stream is None:
                continue
            if member.size > _BOOT_FILE_MAX_BYTES:
                raise SetupError(f"{name} of the emulated host is too large")
            with (directory / name).open("wb") as out:
                while chunk := stream.read(1 << 20):
                    out.write(chunk)
    if wanted:
        raise SetupError(f"the emulated host's tree has no {' and no '.join(wanted)}")


def _make_ext4(tar: Path, target: Path) -> None:
    run_tool(
        [*namespace_command(_PACK), "pack", str(tar), str(target)],
        timeout_s=_EXT4_TIMEOUT_S,
        name="mke2fs",
        env={"SOURCE_DATE_EPOCH": SOURCE_DATE_EPOCH},
    )
