"""The agent's drive: the code that runs in the guest, on a small read-only file system beside the image.

It is made from this package's own sources, so that the agent always speaks the host's protocol version, and a
change of the agent rebuilds nothing else.
"""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import TYPE_CHECKING

from mayfly.errors import SetupError
from mayfly.images.commands import run_tool
from mayfly.images.debian import SOURCE_DATE_EPOCH
from mayfly.images.guest_python import compile_for_guest, python_tag

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable
    from pathlib import Path

    from mayfly.images.store import Entry, Store

__all__ = ["KIND", "build_agent_drive"]

KIND = "agent"

_RECIPE = "3"
_FILE_MAX_BYTES = 1024 * 1024
_REASON_MAX = 500


_BOOT = b'''"""Imported by the image's first process: starts the agent. Its own directory is on the path."""

from mayfly.agent.__main__ import main

main()
'''


def build_agent_drive(store: Store, image: Entry | None = None) -> Entry:
    """The entry with `agent.squashfs`, made anew when the agent's sources differ from the stored ones.

    Compiled files for the image's Python lie beside the sources, for the running one where no image is given. Where
    that cannot be, meta `uncompiled` says why.
    """
    sources = _sources()
    tag = python_tag(image)
    digest = hashlib.sha256(f"{_RECIPE} {tag}".encode())
    for name, content in sorted(sources.items()):
        digest.update(f"\0{name}\0{len(content)}\0".encode() + content)

    def build(directory: Path) -> dict[str, str]:
        tree = directory / "tree"
        for name, content in sources.items():
            path = tree / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        compiled = {tree / name: f"/mayfly/{name}" for name in sources if name.endswith(".py")}
        uncompiled = ""
        try:
            compile_for_guest(compiled, image, directory / "python")
        except SetupError as error:  # the guest then compiles at each boot, which is slower and no worse
            uncompiled = error.message[:_REASON_MAX]
        _pack(tree, directory / "agent.squashfs")
        return {"files": str(len(sources)), "python": tag, "uncompiled": uncompiled}

    return store.build(KIND, digest.hexdigest()[:32], build)


def _sources() -> dict[str, bytes]:
    """Every file of the drive by its path in it."""
    package = files("mayfly")
    found = {
        "boot.py": _BOOT,
        "mayfly/__init__.py": b"",
        "mayfly/guest/__init__.py": b"",
        "mayfly/guest/frames.py": _read(package / "guest" / "frames.py"),
    }
    for item in (package / "agent").iterdir():
        if item.name.endswith(".py"):
            found[f"mayfly/agent/{item.name}"] = _read(item)
    for item in (package / "agent" / "inside").iterdir():
        if item.name.endswith((".py", ".js", ".sh")):
            found[f"mayfly/agent/inside/{item.name}"] = _read(item)
    found.setdefault("mayfly/agent/__init__.py", b"")
    if "mayfly/agent/__main__.py" not in found:
        raise SetupError("this installation of Mayfly has no agent", hint="install it again")
    return found


def _read(item: Traversable) -> bytes:
    try:
        content = item.read_bytes()
    except OSError as error:
        raise SetupError(f"{item} cannot be read: {error}", hint="install Mayfly again") from error
    if len(content) > _FILE_MAX_BYTES:
        raise SetupError(f"{item} is larger than {_FILE_MAX_BYTES} bytes")
    return content


def _pack(tree: Path, target: Path) -> None:
    """Pack without compression: a few dozen kilobytes, read by a CPU that may be emulated."""
    flags = "-quiet -no-progress -noappend -all-root -no-xattrs -noI -noD -noF -noX"
    for path in (tree, *tree.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)  # the programs' user reads there, whatever our umask is
    env = {"SOURCE_DATE_EPOCH": SOURCE_DATE_EPOCH}
    run_tool(["mksquashfs", str(tree), str(target), *flags.split()], timeout_s=60.0, env=env)
    for path in sorted(tree.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    tree.rmdir()
