"""Looks at the header of an ELF file, no more than is needed to refuse a wrong one early."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from mayfly.errors import SetupError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["require_elf"]

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_MACHINE_X86_64 = 62
_SEGMENT_LOAD = 1
_SEGMENT_INTERPRETER = 3
_SEGMENTS_MAX = 128


def require_elf(path: Path, *, max_bytes: int, static: bool = False) -> None:
    """SetupError unless `path` is a plain ELF file for x86-64, with code in it, of at most `max_bytes`.

    With `static`, one that needs a dynamic loader is refused too: it cannot start in an empty jail.
    """
    try:
        if not path.is_file():
            raise SetupError(f"{path} is not a file")
        size = path.stat().st_size
        if size > max_bytes:
            raise SetupError(f"{path} has {size} bytes, at most {max_bytes} are taken")
        with path.open("rb") as stream:
            head = stream.read(_HEADER.size)
            if len(head) < _HEADER.size or head[:6] != b"\x7fELF\x02\x01":
                raise SetupError(f"{path} is not a 64-bit ELF file")
            fields = _HEADER.unpack(head)
            if fields[2] != _MACHINE_X86_64:
                raise SetupError(f"{path} is not for x86-64")
            offset, entry_size, count = fields[5], fields[9], fields[10]
            if entry_size != _SEGMENT.size or not 0 < count <= _SEGMENTS_MAX or offset > size:
                raise SetupError(f"{path} has no program headers that make sense")
            stream.seek(offset)
            table = stream.read(_SEGMENT.size * count)
    except OSError as error:
        raise SetupError(f"{path} cannot be read: {error.strerror}") from error
    if len(table) < _SEGMENT.size * count:
        raise SetupError(f"{path} is cut off")
    kinds = {segment[0] for segment in _SEGMENT.iter_unpack(table)}
    if _SEGMENT_LOAD not in kinds:
        raise SetupError(f"{path} holds nothing to load")
    if static and _SEGMENT_INTERPRETER in kinds:
        raise SetupError(f"{path} is dynamically linked and cannot start in a jail")
