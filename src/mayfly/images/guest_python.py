"""Compiles for the guest's Python by that very Python, taken out of its image and run here as a plain program.

What another Python has compiled is of no use to the guest: it would compile the agent anew at each cold boot.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from mayfly.images.commands import run_tool
from mayfly.images.store import remove_tree

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mayfly.images.store import Entry

__all__ = ["compile_for_guest", "python_tag"]

_TIMEOUT_S = 60.0
_LIBRARIES = "usr/lib/x86_64-linux-gnu"
_LOADER = f"{_LIBRARIES}/ld-linux-x86-64.so.2"
# never compared with its source again, since the drive is read-only
_COMPILE = """
import os, sys
from _frozen_importlib_external import _code_to_hash_pyc, cache_from_source
for path, shown in zip(sys.argv[1::2], sys.argv[2::2]):
    with open(path, "rb") as file:
        code = compile(file.read(), shown, "exec", dont_inherit=True)
    compiled = cache_from_source(path)
    os.makedirs(os.path.dirname(compiled), exist_ok=True)
    with open(compiled, "wb") as file:
        file.write(_code_to_hash_pyc(code, bytes(8), False))
"""


def python_tag(image: Entry | None) -> str:
    """How compiled files of the image's Python are marked, as `cpython-313`; of the running one without an image."""
    version = image.meta.get("python", "").split(".") if image else []
    if len(version) < 2:
        return sys.implementation.cache_tag or ""
    return f"cpython-{version[0]}{version[1]}"


def compile_for_guest(sources: Mapping[Path, str], image: Entry | None, scratch: Path) -> None:
    """Compile files beside themselves; the values are the names that tracebacks show.

    `scratch` is made, and removed again. SetupError when the Python does not run here.
    """
    tag = python_tag(image)
    try:
        if image is None or tag == sys.implementation.cache_tag:
            command, environment = [sys.executable], dict[str, str]()
        else:
            command, environment = _taken_out(image, tag, scratch)
        scratch.mkdir(exist_ok=True)
        program = scratch / "compile.py"  # as `-c` it would need more of the standard library
        program.write_text(_COMPILE)
        words = [word for path, shown in sources.items() for word in (str(path), shown)]
        run_tool([*command, "-BSs", str(program), *words], timeout_s=_TIMEOUT_S, env=environment, name="python3")
    finally:
        remove_tree(scratch)


def _taken_out(image: Entry, tag: str, scratch: Path) -> tuple[list[str], dict[str, str]]:
    """The image's interpreter with what it needs to compile, as a command; its loader and libraries are the image's."""
    name = f"python{tag.removeprefix('cpython-')[:1]}.{tag.removeprefix('cpython-')[1:]}"
    wanted = [f"usr/bin/{name}", f"usr/lib/{name}/encodings", f"usr/lib/{name}/os.py", _LOADER]
    wanted += [f"{_LIBRARIES}/{library}.so*" for library in ("libc", "libm", "libz", "libexpat")]
    rootfs = image.file("rootfs.squashfs")
    run_tool(
        ["unsquashfs", "-quiet", "-no-progress", "-no-xattrs", "-dest", str(scratch), str(rootfs), *wanted],
        timeout_s=_TIMEOUT_S,
    )
    command = [str(scratch / _LOADER), "--library-path", str(scratch / _LIBRARIES), str(scratch / "usr/bin" / name)]
    return command, {"PYTHONHOME": str(scratch / "usr")}
