"""The running code as data: its files, and the hash by which a node of other code is recognised."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

import mayfly

__all__ = ["code_hash", "package_files"]

_SUFFIXES_LEFT_OUT = (".pyc", ".pyo")


def package_files() -> list[tuple[str, Path]]:
    """Every file of the package with its name from the package's parent, sorted: `("mayfly/errors.py", path)`."""
    root = Path(next(iter(mayfly.__path__)))
    return sorted(
        (str(path.relative_to(root.parent)), path)
        for path in root.rglob("*")
        if path.is_file() and path.suffix not in _SUFFIXES_LEFT_OUT and "__pycache__" not in path.parts
    )


@functools.cache
def code_hash() -> str:
    """Twelve hexadecimal digits over names and contents of the package's files, read once a process."""
    digest = hashlib.sha256()
    for name, path in package_files():
        content = path.read_bytes()
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:12]
