"""Operators on what is known; results that would be huge are facts instead."""

from __future__ import annotations

import ast
import operator
import re
from typing import TYPE_CHECKING, Any

from mayfly.scan.facts import UNKNOWN, Value
from mayfly.scan.values import MAX_CONSTS, concat, limited, taints_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from mayfly.scan.python.walk import Walk

__all__ = ["binary"]

_MANY = 1 << 30
# `%99999999d` makes a text of that length.
_WIDE = re.compile(r"%[-+ #0]*(?:\d{5}|\*)|%[-+ #0]*\d*\.(?:\d{5}|\*)")


_MAX_ELEMENTS = 4096
_MAX_TEXT = 256 * 1024


_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Mod: operator.mod,
    ast.FloorDiv: operator.floordiv,
    ast.Div: operator.truediv,
    ast.BitXor: operator.xor,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.LShift: operator.lshift,
    ast.RShift: operator.rshift,
    ast.Pow: operator.pow,
}


def binary(walk: Walk, op: ast.operator, left: Value, right: Value) -> Value:  # noqa: PLR0911 - one for each operator
    """`left op right`."""
    taints = left.taints | right.taints if left.taints and right.taints else left.taints or right.taints
    kind = op.__class__
    if kind is ast.Div and "pathlib.Path()" in (left.origin, right.origin):
        joined = concat([left, Value(consts=("/",)), right])
        return Value(consts=joined.consts, prefix=joined.prefix, taints=taints, origin="pathlib.Path()")
    if kind is ast.BitOr and left.origin and right.origin:
        return Value(origin=f"{left.origin}|{right.origin}"[-200:], taints=taints)
    if kind is ast.Mult:
        _note_size(walk, left, right)
    if left.consts and right.consts:
        found = [r for a in left.consts for b in right.consts[:4] for r in _fold(walk, op, a, b)]
        return Value(consts=tuple(found[:MAX_CONSTS]), taints=taints)
    if kind is ast.Add:
        if left.elements is not None or right.elements is not None:
            return Value(elements=((left.elements or ()) + (right.elements or ()))[:_MAX_ELEMENTS], taints=taints)
        if texts := left.texts:
            return Value(prefix=texts[0][:4096], taints=taints)
    if kind is ast.Mod and left.consts and right.elements and (text := _formatted(left, right)):
        return Value(consts=(text,), taints=taints | taints_of(right.elements))
    if kind is ast.Mod and (texts := left.texts):
        return Value(prefix=texts[0].partition("%")[0], taints=taints | taints_of(right.elements or ()))
    return Value(taints=taints, origin="") if taints else UNKNOWN


def _formatted(left: Value, right: Value) -> str:
    """`"/%s/%s" % ("etc", "passwd")`, where every part is known; else ""."""
    parts = [part.consts[0] for part in right.elements or () if len(part.consts) == 1]
    text = left.consts[0]
    if len(parts) != len(right.elements or ()) or not isinstance(text, str) or _WIDE.search(text):
        return ""
    if sum(len(part) for part in parts if isinstance(part, (str, bytes))) > _MAX_TEXT:
        return ""
    try:
        result = text % tuple(parts)
    except (TypeError, ValueError, OverflowError, MemoryError):
        return ""
    return result if limited(result) else ""


def _fold(walk: Walk, op: ast.operator, left: Any, right: Any) -> list[Any]:
    """One constant from two, if it is small; what would be huge is a fact."""
    if isinstance(op, ast.Pow):
        if not (isinstance(left, (int, float)) and isinstance(right, (int, float))):
            return []
        if isinstance(left, int) and isinstance(right, int) and left.bit_length() * max(right, 0) > 1 << 16:
            if left.bit_length() * right > _MANY:
                walk.rec.alloc(min(left.bit_length() * right // 8, 1 << 60), "number")
            return [float("inf")] if abs(left) > 1 else []
    if isinstance(op, ast.LShift) and isinstance(right, int) and right > 1 << 14:
        if right > _MANY:
            walk.rec.alloc(min(right // 8, 1 << 60), "number")
        return []
    if isinstance(op, ast.Mult) and _product(left, right) > _MAX_TEXT:
        return []
    try:
        result = _OPERATORS[type(op)](left, right)
    except (TypeError, ValueError, ArithmeticError, KeyError, MemoryError):
        return []
    return [result] if limited(result) else []


def _product(left: Any, right: Any) -> int:
    """How long `left * right` is, when one of them is a text."""
    for text, times in ((left, right), (right, left)):
        if isinstance(text, (str, bytes)) and isinstance(times, int):
            return len(text) * max(times, 0)
    return 0


def _note_size(walk: Walk, left: Value, right: Value) -> None:
    """`"x" * 10**10`, `[0] * 10**9`."""
    for thing, times in ((left, right), (right, left)):
        count = max((n for n in times.numbers if n == n and n > 0), default=0)  # noqa: PLR0124 - skips NaN
        length = max((len(c) for c in thing.consts if isinstance(c, (str, bytes))), default=0)
        size = length or 8 * len(thing.elements or ())
        total = size * count
        if total >= _MANY:
            walk.rec.alloc(int(min(total, 1 << 60)), "text" if length else "list")
