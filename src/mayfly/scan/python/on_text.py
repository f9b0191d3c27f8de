"""Calls that make texts and numbers from others: where programs hide what they say."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from mayfly.scan.facts import UNKNOWN, Value
from mayfly.scan.values import MAX_CONSTS, concat, decode, limited, taints_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from mayfly.scan.python.site import Site

__all__ = ["CALLS", "METHODS"]

_MAX_PARTS = 65_536
_BIG = 1 << 30


def _mapped(site: Site, value: Value, change: Callable[[Any], Any]) -> Value:
    """Each constant changed; those that do not fit are dropped."""
    found: list[Any] = []
    for constant in value.consts:
        with contextlib.suppress(TypeError, ValueError, ArithmeticError, LookupError, AttributeError, MemoryError):
            result = change(constant)
            if limited(result):
                found.append(result)
    return Value(consts=tuple(found[:MAX_CONSTS]), taints=site.taints)


def _decoder(how: str) -> Callable[[Site], Value]:
    return lambda site: decode(site.arg(0, "s", "data"), how)


def _codec(site: Site) -> Value:
    """`codecs.decode(x, 'rot13')`."""
    names = {"rot13": "rot13", "rot_13": "rot13", "hex": "hex", "hex_codec": "hex", "base64": "base64",
             "base64_codec": "base64", "zlib": "zlib", "zlib_codec": "zlib", "zip": "zlib", "bz2": "bz2",
             "bz2_codec": "bz2"}  # fmt: skip
    how = names.get((site.arg(1, "encoding").texts or ("",))[0].lower().replace("-", "_"))
    return decode(site.arg(0, "obj"), how, text=how == "rot13") if how else site.arg(0, "obj")


def _chr(site: Site) -> Value:
    return _mapped(site, site.arg(0), chr)


def _ord(site: Site) -> Value:
    return _mapped(site, site.arg(0), ord)


def _int(site: Site) -> Value:
    base = site.arg(1, "base").consts
    if base:
        return _mapped(site, site.arg(0), lambda c: int(c, base[0]) if len(c) < 2000 else None)
    return _mapped(site, site.arg(0), lambda c: int(c) if not isinstance(c, (str, bytes)) or len(c) < 2000 else None)


def _str(site: Site) -> Value:
    first = site.arg(0)
    if first.consts and all(isinstance(c, (str, bytes)) for c in first.consts):
        found = _mapped(site, first, lambda c: c if isinstance(c, str) else c.decode("utf-8"))
        return Value(consts=found.consts, taints=found.taints, origin=first.origin)
    if first.consts:
        return _mapped(site, first, lambda c: str(c) if not isinstance(c, int) or c.bit_length() < 4096 else None)
    if first.origin == "os.environ":
        site.rec.env(how="show")
    return Value(prefix=first.prefix, taints=site.taints)


def _numbers(value: Value) -> list[int] | None:
    """The small integers of a sequence, when all are known."""
    if value.elements is None or len(value.elements) > _MAX_PARTS:
        return None
    found = [
        next((c for c in m.consts if isinstance(c, int) and not isinstance(c, bool)), None) for m in value.elements
    ]
    whole = [n for n in found if n is not None and 0 <= n < 256]
    return whole if len(whole) == len(found) else None


def _bytes(site: Site) -> Value:
    first = site.arg(0)
    if (numbers := _numbers(first)) is not None:
        return Value(consts=(bytes(numbers),), taints=site.taints)
    for number in first.numbers:
        if number >= _BIG:
            site.rec.alloc(int(min(number, 1 << 60)), "bytes")
    return _mapped(site, first, lambda c: c.encode() if isinstance(c, str) else c if isinstance(c, bytes) else None)


def _list(site: Site) -> Value:
    first = site.arg(0)
    if site.function.origin == "iter" and len(site.args) == 2 and first.origin in ("int", "float", "str", "bool"):
        return Value(origin="itertools.count()")  # never equal to the sentinel
    if first.origin in ("itertools.count()", "itertools.cycle()", "itertools.repeat()"):
        site.rec.loop({"grow"})
    if first.origin == "range()" and first.numbers and first.numbers[0] >= _BIG // 8:
        site.rec.alloc(int(min(8 * first.numbers[0], 1 << 60)), "list")
    if first.elements is None and len(first.consts) == 1 and isinstance(first.consts[0], (str, bytes)):
        members = tuple(Value(consts=(c,)) for c in first.consts[0][:4096])
        return Value(elements=members, taints=first.taints)
    origin = "" if first.elements is not None else first.origin
    return Value(elements=first.elements, taints=site.taints, origin=origin)


def _reversed(site: Site) -> Value:
    first = site.arg(0)
    if first.elements is not None:
        return Value(elements=first.elements[::-1], taints=first.taints)
    return _mapped(site, first, lambda c: c[::-1])


def _range(site: Site) -> Value:
    ends = [site.arg(n).consts[:1] for n in range(len(site.args))]
    numbers = [e[0] for e in ends if e and isinstance(e[0], int)]
    if len(numbers) != len(site.args) or not numbers or 0 in numbers[2:]:
        return Value(origin="range()", taints=site.taints)
    span = range(*numbers[:3])
    size = (span[-1] - span[0]) // span.step + 1 if span else 0
    if size <= 128:
        return Value(elements=tuple(Value(consts=(n,)) for n in span), origin="range()")
    return Value(origin="range()", consts=(size,))


def _map(site: Site) -> Value:
    """`map(chr, [104, 105])`; other functions are called once with any member."""
    from mayfly.scan.python.calls import perform

    function, source = site.arg(0), site.arg(1)
    members = source.elements
    if members is None and len(source.consts) == 1 and isinstance(source.consts[0], (str, bytes)):
        members = tuple(Value(consts=(c,), taints=source.taints) for c in source.consts[0][:4096])
    if not members or len(members) > 4096:
        members = (Value(taints=source.taints),)
    found = [perform(site.walk, function, UNKNOWN, [m], {}) for m in members]
    return Value(elements=tuple(found), taints=taints_of(found))


def _zip(site: Site) -> Value:
    lists = [a.elements or tuple(Value(consts=(c,)) for t in a.consts[:1] for c in _letters(t)) for a in site.args]
    if not lists or not all(lists):
        return Value(taints=site.taints)
    rows = tuple(Value(elements=row, taints=taints_of(row)) for row in zip(*lists, strict=False))
    return Value(elements=rows[:4096], taints=site.taints)


def _letters(constant: Any) -> Any:
    return constant[:4096] if isinstance(constant, (str, bytes)) else ()


def _enumerate(site: Site) -> Value:
    members = site.arg(0).elements or tuple(Value(consts=(c,)) for t in site.arg(0).consts[:1] for c in _letters(t))
    if not members:
        return Value(elements=(Value(elements=(UNKNOWN, Value(taints=site.taints))),))
    rows = tuple(Value(elements=(Value(consts=(n,)), m)) for n, m in enumerate(members[:4096]))
    return Value(elements=rows, taints=site.taints)


def _array(site: Site) -> Value:
    """`numpy.zeros(shape)`: eight bytes an element unless said otherwise."""
    shape = site.arg(0, "shape", "N")
    sizes = [m.numbers for m in shape.elements] if shape.elements else [shape.numbers]
    total = 8.0
    for size in sizes:
        total *= min(max(size, default=0), _BIG)
    if total >= _BIG:
        site.rec.alloc(int(min(total, 1 << 60)), "array")
    return Value(taints=site.taints, origin=f"{site.function.origin}()")


def _join(site: Site) -> Value:
    """`separator.join(parts)`."""
    source = site.arg(0)
    members = source.elements
    if members is None:
        return Value(taints=site.taints)
    separators = site.receiver.consts[:1]
    if not separators or not isinstance(separators[0], (str, bytes)):
        separators = ("",)
    if isinstance(separators[0], bytes):
        parts = [m.consts[0] for m in members if m.consts and isinstance(m.consts[0], bytes)]
        whole = separators[0].join(parts)
        return Value(consts=(whole,) if len(parts) == len(members) else (), taints=site.taints)
    singles = [m.consts[0] for m in members if len(m.consts) == 1 and isinstance(m.consts[0], str)]
    if len(singles) == len(members):
        text = separators[0].join(singles)
        return Value(consts=(text,) if limited(text) else (), taints=site.taints)
    pieces: list[Value] = []
    for member in members[:512]:
        pieces += [Value(consts=separators), member] if pieces else [member]
    found = concat(pieces)
    return Value(consts=found.consts, prefix=found.prefix, taints=site.taints)


def _replace(site: Site) -> Value:
    old, new = site.arg(0).consts[:1], site.arg(1).consts[:1]
    if not old or not new:
        return Value(taints=site.taints)
    return _mapped(site, site.receiver, lambda c: c.replace(old[0], new[0]) if len(c) < 65_536 else None)


def _format(site: Site) -> Value:
    """`"{}/{}".format(a, b)`: worked out for plain fields."""
    text = (site.receiver.texts or ("",))[0]
    pieces: list[Value] = []
    rest = text
    number = 0
    while "{" in rest and "}" in rest:
        before, _, after = rest.partition("{")
        name, _, rest = after.partition("}")
        name = name.partition(":")[0].partition("!")[0]
        pieces.append(Value(consts=(before,)))
        pieces.append(site.kwargs.get(name) or site.arg(int(name[:4]) if name.isdigit() else number))
        number += 1
    found = concat([*pieces, Value(consts=(rest,))])
    return Value(consts=found.consts, prefix=found.prefix, taints=site.taints)


def _method(name: str) -> Callable[[Site], Value]:
    """A method of `str` and `bytes` without arguments worth knowing."""

    def handler(site: Site) -> Value:
        args = [a.consts[0] for a in site.args if a.consts]
        return _mapped(site, site.receiver, lambda c: getattr(c, name)(*args) if len(args) == len(site.args) else None)

    return handler


def _split(site: Site) -> Value:
    args = [a.consts[0] for a in site.args if a.consts]
    for constant in site.receiver.consts[:1]:
        if not isinstance(constant, (str, bytes)):
            continue
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            parts = constant.split(*args)
            return Value(elements=tuple(Value(consts=(p,)) for p in parts[:4096]), taints=site.taints)
    return Value(taints=site.taints)


def _fromhex(site: Site) -> Value:
    return decode(site.arg(0), "hex")


def _from_bytes(site: Site) -> Value:
    """`x.to_bytes(...)`, `int.from_bytes`: followed for constants."""
    length = site.arg(0, "length").consts[:1]
    order = (site.arg(1, "byteorder").texts or ("big",))[0]
    if not length or order not in ("big", "little"):
        return Value(taints=site.taints)
    return _mapped(site, site.receiver, lambda c: c.to_bytes(min(length[0], 65_536), order))


CALLS: dict[str, Callable[[Site], Value]] = {
    **dict.fromkeys(("base64.b64decode", "base64.standard_b64decode", "base64.decodebytes", "binascii.a2b_base64"),
                    _decoder("base64")),
    "base64.urlsafe_b64decode": _decoder("urlsafe_base64"),
    **dict.fromkeys(("base64.b32decode",), _decoder("base32")),
    **dict.fromkeys(("base64.b16decode", "binascii.unhexlify", "binascii.a2b_hex"), _decoder("hex")),
    "base64.b85decode": _decoder("base85"),
    "base64.a85decode": _decoder("ascii85"),
    **dict.fromkeys(("zlib.decompress", "gzip.decompress", "zlib.decompressobj().decompress"), _decoder("zlib")),
    **dict.fromkeys(("bz2.decompress", "bz2.BZ2Decompressor().decompress"), _decoder("bz2")),
    **dict.fromkeys(("lzma.decompress", "lzma.LZMADecompressor().decompress"), _decoder("lzma")),
    "codecs.decode": _codec,
    **dict.fromkeys(("codecs.encode",), _codec),
    **dict.fromkeys(("bytes.fromhex", "bytearray.fromhex"), _fromhex),
    "urllib.parse.unquote": lambda site: _mapped(site, site.arg(0), unquote),
    "chr": _chr, "ord": _ord, "int": _int, "str": _str,
    **dict.fromkeys(("bytes", "bytearray"), _bytes),
    **dict.fromkeys(("list", "tuple", "set", "frozenset", "iter", "sorted"), _list),
    "reversed": _reversed, "range": _range, "map": _map, "zip": _zip, "enumerate": _enumerate,
    **dict.fromkeys(("numpy.zeros", "numpy.ones", "numpy.empty", "numpy.full", "numpy.eye", "numpy.arange",
                     "torch.zeros", "torch.ones", "torch.empty"), _array),
    "str.join": lambda site: _join(type(site)(site.walk, site.function, site.arg(0), site.args[1:], {}, "join")),
}  # fmt: skip
METHODS: dict[str, Callable[[Site], Value]] = {
    "join": _join,
    "replace": _replace,
    "format": _format,
    "split": _split,
    **{
        name: _method(name)
        for name in ("strip", "lstrip", "rstrip", "lower", "upper", "swapcase", "title", "encode", "decode", "zfill",
                     "removeprefix", "removesuffix", "casefold", "capitalize", "hex", "translate")
    },
    "to_bytes": _from_bytes,
}  # fmt: skip
