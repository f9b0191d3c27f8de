"""Arithmetic on what is known: joining, concatenating, decoding. Every result is bounded."""

from __future__ import annotations

import base64
import binascii
import codecs
import contextlib
import zlib
from itertools import islice
from typing import TYPE_CHECKING, Any

from mayfly.scan.facts import UNKNOWN, Value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = [
    "DECODERS",
    "MAX_CONSTS",
    "MAX_ELEMENTS",
    "concat",
    "const",
    "decode",
    "elements_of",
    "join",
    "limited",
    "tainted",
    "taints_of",
    "unknown",
]

MAX_CONSTS = 16
MAX_ELEMENTS = 4096
_NO_TAINTS: frozenset[str] = frozenset()
_MAX_TEXT = 256 * 1024
_MAX_LZMA_BYTES = 64 * 1024 * 1024
_MAX_INT_BITS = 4096


def limited(constant: Any) -> bool:
    """True when a constant is small enough to be kept."""
    if constant.__class__ is str or isinstance(constant, (str, bytes)):
        return len(constant) <= _MAX_TEXT
    if isinstance(constant, int):
        return constant.bit_length() <= _MAX_INT_BITS
    return constant is None or isinstance(constant, (float, bool, complex))


def const(constant: Any, *taints: str) -> Value:
    """A value of one constant."""
    return Value(consts=(constant,), taints=frozenset(taints)) if limited(constant) else unknown(*taints)


def unknown(*taints: str, origin: str = "") -> Value:
    """A value of which only the provenance is known."""
    return Value(taints=frozenset(taints), origin=origin) if taints or origin else UNKNOWN


def tainted(value: Value, *taints: str) -> Value:
    """The same value with more provenance."""
    return Value(
        consts=value.consts,
        prefix=value.prefix,
        taints=value.taints.union(taints),
        origin=value.origin,
        elements=value.elements,
        keys=value.keys,
        ref=value.ref,
    )


def taints_of(values: Iterable[Value]) -> frozenset[str]:
    """Everything that the values (and their members) carry."""
    found = _NO_TAINTS
    deeper: list[tuple[Value, ...]] = []
    for value in values:
        if value.taints:
            found = found | value.taints if found else value.taints
        if value.elements:
            deeper.append(value.elements)
    # Members are shared: `a = [a, a]` twenty times over has a million ways down, and twenty lists.
    seen: set[int] = set()
    while deeper:
        members = deeper.pop()
        if id(members) in seen:
            continue
        seen.add(id(members))
        for value in members:
            if value.taints:
                found = found | value.taints if found else value.taints
            if value.elements:
                deeper.append(value.elements)
    return found


def join(*values: Value) -> Value:
    """What is known when it may be any of the values."""
    first = values[0]
    if len(values) == 2:
        second = values[1]
        if first is second:
            return first
        if not (first.elements or second.elements or first.keys or second.keys):
            return _join_two(first, second)
    elif all(value is first for value in values):
        return first
    return _join_many(values)


def _join_many(values: tuple[Value, ...]) -> Value:
    """One turn over all of them: this is where a walk through branches spends its time."""
    consts: dict[tuple[type, Any], Any] = {}
    prefix, taints, named = "", _NO_TAINTS, UNKNOWN
    elements: tuple[Value, ...] | None = None
    keys: tuple[str, ...] = ()
    for value in values:
        for constant in value.consts:
            consts.setdefault((constant.__class__, constant), constant)
        prefix = prefix or value.prefix
        if value.taints:
            taints = taints | value.taints if taints else value.taints
        if named is UNKNOWN and (value.origin or value.ref is not None):
            named = value
        if value.elements is not None:
            elements = elements + value.elements if elements else value.elements
            elements = elements[:MAX_ELEMENTS]
        if value.keys:
            keys = (keys + value.keys)[:MAX_ELEMENTS]
    return Value(
        consts=tuple(islice(consts.values(), MAX_CONSTS)),
        prefix=prefix,
        taints=taints,
        origin=named.origin,
        elements=elements,
        keys=keys,
        ref=named.ref,
    )


def _join_two(left: Value, right: Value) -> Value:
    """The common case, without members."""
    if left is UNKNOWN and len(right.consts) < 2:
        return right
    if right is UNKNOWN and len(left.consts) < 2:
        return left
    named = left if left.origin or left.ref is not None else right
    return Value(
        consts=left.consts if left.consts == right.consts else tuple(_merged((left, right))[:MAX_CONSTS]),
        prefix=left.prefix or right.prefix,
        taints=left.taints | right.taints if left.taints and right.taints else left.taints or right.taints,
        origin=named.origin,
        elements=left.elements if left.elements is not None else right.elements,
        ref=named.ref,
    )


def _merged(values: Iterable[Value]) -> list[Any]:
    """The constants of all, each once; 1, 1.0 and True are three."""
    found: dict[tuple[type, Any], Any] = {}
    for value in values:
        for constant in value.consts:
            found.setdefault((type(constant), constant), constant)
    return list(found.values())


def elements_of(value: Value) -> Value:
    """One member of a sequence, whichever it is."""
    if value.elements:
        return join(*value.elements[:MAX_CONSTS])
    singles = [c for text in value.consts if isinstance(text, str) and len(text) <= MAX_CONSTS for c in text]
    origin = value.origin + "[]" if value.origin else ""
    return Value(consts=tuple(singles), taints=value.taints, origin=origin)


def concat(parts: list[Value]) -> Value:
    """The text made of parts; where a part is unknown, the known start is kept."""
    taints = taints_of(parts)
    texts = [""]
    for part in parts:
        choices = [c if isinstance(c, str) else str(c) for c in part.consts if isinstance(c, (str, int, float))]
        if not choices:
            start = texts[0] + part.prefix
            joined = {"joined"} if taints and len(parts) > 1 else set()
            return Value(prefix=start[:_MAX_TEXT], taints=taints | joined)
        texts = [text + choice for text in texts for choice in choices][:MAX_CONSTS]
        if len(texts[0]) > _MAX_TEXT:
            return Value(prefix=texts[0][:4096], taints=taints)
    return Value(consts=tuple(texts), taints=taints)


def _bytes(constant: Any) -> bytes:
    return constant if isinstance(constant, bytes) else str(constant).encode("latin-1", "replace")


def _b64(data: bytes) -> bytes:
    stripped = data.strip()
    return base64.b64decode(stripped + b"=" * (-len(stripped) % 4))


def _urlsafe(data: bytes) -> bytes:
    return base64.urlsafe_b64decode(data.strip() + b"=" * (-len(data.strip()) % 4))


def _inflate(data: bytes) -> bytes:
    """Deflated data with zlib's or gzip's header, or none."""
    try:
        return zlib.decompressobj(47).decompress(data, _MAX_TEXT)
    except zlib.error:
        return zlib.decompressobj(-15).decompress(data, _MAX_TEXT)


def _bunzip(data: bytes) -> bytes:
    import bz2

    try:
        return bz2.BZ2Decompressor().decompress(data, _MAX_TEXT)
    except OSError as error:
        raise ValueError from error


def _unlzma(data: bytes) -> bytes:
    import lzma

    try:
        return lzma.LZMADecompressor(memlimit=_MAX_LZMA_BYTES).decompress(data, _MAX_TEXT)
    except lzma.LZMAError as error:
        raise ValueError from error


DECODERS: dict[str, Callable[[bytes], bytes]] = {
    "base64": _b64,
    "urlsafe_base64": _urlsafe,
    "base32": lambda data: base64.b32decode(data.strip()),
    "base85": lambda data: base64.b85decode(data.strip()),
    "ascii85": lambda data: base64.a85decode(data.strip()),
    "hex": lambda data: binascii.unhexlify(b"".join(data.split())),
    "zlib": _inflate,
    "bz2": _bunzip,
    "lzma": _unlzma,
    "rot13": lambda data: codecs.encode(data.decode("latin-1"), "rot13").encode("latin-1"),
    "reverse": lambda data: data[::-1],
}
"""By name; each takes bytes and gives bytes of at most 256 KiB, or raises ValueError or zlib.error."""


def decode(value: Value, how: str, *, text: bool = False) -> Value:
    """The decoded value, marked `decoded`; as text where asked for and possible."""
    taints = value.taints | {"decoded"}
    found: list[Any] = []
    for constant in value.consts:
        if not isinstance(constant, (str, bytes)):
            continue
        with contextlib.suppress(ValueError, zlib.error, UnicodeError, OverflowError, MemoryError):
            data = DECODERS[how](_bytes(constant))
            if len(data) <= _MAX_TEXT:
                found.append(data.decode("utf-8", "replace") if text else data)
    return Value(consts=tuple(found[:MAX_CONSTS]), taints=frozenset(taints))
