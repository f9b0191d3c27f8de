"""What `base.name` stands for: a name that things are known by, a member of a class of the program, or neither."""

from __future__ import annotations

import ast
from functools import lru_cache
from typing import TYPE_CHECKING

from mayfly.scan.facts import Value
from mayfly.scan.python.names import CONSTANTS, canonical
from mayfly.scan.python.refs import ClassRef, FileRef, FunctionRef

if TYPE_CHECKING:
    from mayfly.scan.python.walk import Walk

__all__ = ["attribute"]

_INSIDES = frozenset({
    "__subclasses__", "__globals__", "__builtins__", "__bases__", "__base__", "__mro__", "__code__", "__closure__",
    "__getattribute__", "f_globals", "f_builtins", "f_locals", "f_back", "gi_frame", "cr_frame", "tb_frame", "ag_frame",
    "__loader__", "__reduce_ex__", "co_code", "func_globals", "__self__",
})  # fmt: skip


def attribute(walk: Walk, base: Value, name: str, node: ast.AST | None) -> Value:
    """`base.name`."""
    if name in _INSIDES:
        if isinstance(node, ast.Attribute):
            walk.rec.line, walk.rec.column = node.lineno, node.col_offset + 1
        walk.rec.inside(name)
    if base.ref is not None:
        if isinstance(base.ref, ClassRef):
            return _member(base, name)
        if isinstance(base.ref, FileRef):
            return Value(origin=f"{base.origin or 'open()'}.{name}", taints=base.taints, ref=base.ref)
    found = _named(base.origin, name)
    if not base.taints and not base.consts:
        return found
    if found.taints or found.consts:
        return found
    kept = base.consts if base.origin and name in _PATHLIKE else ()
    return Value(origin=found.origin, taints=base.taints, consts=kept)


@lru_cache(maxsize=4096)
def _named(base: str, name: str) -> Value:
    """An attribute of something of which only the name is known, if that."""
    if not base:
        return Value(origin="?." + name)
    origin = canonical(f"{base}.{name}"[-200:])
    if origin == "os.environ":
        return Value(origin=origin, taints=frozenset({"env-all"}))
    if (constant := CONSTANTS.get(origin)) is not None:
        return Value(origin=origin, consts=(constant,))
    if origin in ("sys.argv", "sys.stdin"):
        return Value(origin=origin, taints=frozenset({"input"}))
    return Value(origin=origin)


_PATHLIKE = frozenset({"parent", "parents", "absolute", "resolve", "expanduser"})


def _member(base: Value, name: str) -> Value:
    """An attribute of a class of the program or of its instance; a method comes bound."""
    found: Value | None = base.ref.names.get(name)
    if found is None:
        for parent in base.ref.bases:
            if parent.origin:
                return Value(origin=f"{parent.origin}().{name}", taints=base.taints)
        return Value(taints=base.taints, origin="?." + name)
    if isinstance(found.ref, FunctionRef) and found.ref.bound is not None and base.ref.instance:
        method = found.ref
        return Value(ref=FunctionRef(method.node, method.scopes, method.defaults, bound=base))
    return found
