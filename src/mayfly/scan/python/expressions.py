"""What an expression may be: constants folded, names resolved, calls handed on."""

from __future__ import annotations

import ast
import operator
from typing import TYPE_CHECKING, Any

from mayfly.scan.facts import UNKNOWN, Value
from mayfly.scan.python.arithmetic import binary
from mayfly.scan.python.attributes import attribute
from mayfly.scan.python.names import canonical
from mayfly.scan.python.refs import FileRef, FunctionRef
from mayfly.scan.values import MAX_CONSTS, concat, const, elements_of, join, limited, taints_of, unknown

if TYPE_CHECKING:
    from collections.abc import Callable

    from mayfly.scan.python.walk import Walk

__all__ = ["EXPRESSIONS", "evaluate", "iterate", "look_at", "place_of_variable"]

_MAX_COMPREHENSION = 4096


def evaluate(walk: Walk, node: ast.expr) -> Value:
    """What is known of an expression; facts on the way are recorded."""
    return EXPRESSIONS[node.__class__](walk, node)


def look_at(walk: Walk, node: ast.expr) -> None:
    """Record the facts of an expression whose value nobody uses: names and constants have none."""
    kind = node.__class__
    if kind is ast.Name or kind is ast.Constant:
        return
    if isinstance(node, ast.Compare):
        look_at(walk, node.left)
        for part in node.comparators:
            look_at(walk, part)
    elif isinstance(node, ast.BoolOp):
        for part in node.values:
            look_at(walk, part)
    elif isinstance(node, ast.UnaryOp):
        look_at(walk, node.operand)
    else:
        EXPRESSIONS[kind](walk, node)


def iterate(walk: Walk, value: Value) -> Value:
    """What a loop over the value gives."""
    if value.origin == "os.environ":
        walk.rec.env(how="iterate")
        return unknown("env-all")
    if isinstance(value.ref, FileRef):
        return Value(taints=value.taints)
    return elements_of(value)


def _generic(walk: Walk, node: ast.expr) -> Value:
    parts = [evaluate(walk, child) for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr)]
    taints = taints_of(parts)
    return Value(taints=taints) if taints else UNKNOWN


def _constant(walk: Walk, node: ast.Constant) -> Value:
    constant = node.value
    if constant.__class__ is str:
        if (known := walk.texts.get(constant)) is None:
            known = walk.texts[constant] = Value(consts=(constant,)) if limited(constant) else UNKNOWN
        return known
    key = (constant.__class__, constant)
    if (known := walk.constants.get(key)) is None:
        # -0.0 and 0.0 share a key, which no rule minds.
        known = walk.constants[key] = Value(consts=(constant,)) if limited(constant) else UNKNOWN
    return known


def _name(walk: Walk, node: ast.Name) -> Value:
    # Nearly every name is one of the function at hand or of the module.
    return walk.scopes[-1].get(node.id) or walk.lookup(node.id)


def _attribute(walk: Walk, node: ast.Attribute) -> Value:
    return attribute(walk, EXPRESSIONS[node.value.__class__](walk, node.value), node.attr, node)


def _subscript(walk: Walk, node: ast.Subscript) -> Value:  # noqa: PLR0911 - what a subscript may mean, in order
    kinds = EXPRESSIONS
    base = kinds[node.value.__class__](walk, node.value)
    if isinstance(node.slice, ast.Slice):
        return _slice(walk, base, node.slice)
    key = kinds[node.slice.__class__](walk, node.slice)
    text = next((k for k in key.consts if isinstance(k, str)), None)
    if base.origin == "os.environ":
        walk.rec.env(text or "?")
        return place_of_variable(text or "")
    if text is not None and (named := _by_name(base.origin, text)):
        walk.rec.code("attribute", Value(consts=(named,), origin=base.origin))
        return Value(origin=named)
    number = next((k for k in key.consts if isinstance(k, int)), None)
    if base.origin == "sys.argv" and number == 0:
        return Value(taints=frozenset({"self"}), origin="sys.argv[]")
    members = base.elements
    if members and number is not None and -len(members) <= number < len(members) and not base.keys:
        return members[number]
    if members:
        return join(*members[:MAX_CONSTS])
    if number is not None and base.consts:
        picked = tuple(c[number] for c in base.consts if isinstance(c, (str, bytes)) and -len(c) <= number < len(c))
        return Value(consts=picked, taints=base.taints)
    return Value(taints=base.taints | key.taints, origin=base.origin + "[]" if base.origin else "")


_PLACES = {
    "HOME": "~",
    "USERPROFILE": "~",
    "APPDATA": "~/AppData/Roaming",
    "LOCALAPPDATA": "~/AppData/Local",
}


def place_of_variable(name: str) -> Value:
    """What an environment variable holds: a well-known place, or nobody knows."""
    place = _PLACES.get(name)
    return Value(consts=(place,) if place else (), taints=frozenset({"env"}))


def _by_name(origin: str, key: str) -> str:
    """`sys.modules['os']`, `globals()['eval']`, `os.__dict__['system']`: a thing fetched by its name."""
    if origin in ("__dict__", "sys.modules", "globals()", "locals()", "vars()", "__builtins__", "builtins.__dict__"):
        return canonical(key)
    if origin.endswith((".__globals__", ".__builtins__", ".f_globals", ".f_builtins")):
        return canonical(key)
    if origin.endswith(".__dict__"):
        return canonical(origin.removesuffix("__dict__") + key)
    return ""


def _slice(walk: Walk, base: Value, part: ast.Slice) -> Value:
    bounds: list[int | None] = []
    for bound in (part.lower, part.upper, part.step):
        value = evaluate(walk, bound) if bound is not None else None
        number = next((c for c in value.consts if isinstance(c, int)), None) if value is not None else None
        if value is not None and number is None:
            return Value(taints=base.taints)
        bounds.append(number)
    if bounds[2] == 0:
        return UNKNOWN
    cut = slice(*bounds)
    members = base.elements[cut] if base.elements is not None else None
    texts = tuple(c[cut] for c in base.consts if isinstance(c, (str, bytes)))
    return Value(consts=texts, taints=base.taints, elements=members, origin=base.origin if not texts else "")


def _sequence(walk: Walk, node: ast.List | ast.Tuple | ast.Set) -> Value:
    members: list[Value] = []
    kinds = EXPRESSIONS
    for item in node.elts[:_MAX_COMPREHENSION]:
        if item.__class__ is ast.Starred:
            value = evaluate(walk, item.value)
            members += (value.elements or (iterate(walk, value),))[: _MAX_COMPREHENSION - len(members)]
        else:
            members.append(kinds[item.__class__](walk, item))
    return Value(elements=tuple(members), taints=taints_of(members))


def _dictionary(walk: Walk, node: ast.Dict) -> Value:
    keys: list[str] = []
    members: list[Value] = []
    for key, item in zip(node.keys, node.values, strict=True):
        if key is not None:
            keys += [c for c in evaluate(walk, key).consts if isinstance(c, str)]
        members.append(evaluate(walk, item))
    return Value(elements=tuple(members), keys=tuple(keys), taints=taints_of(members), origin="")


def _binop(walk: Walk, node: ast.BinOp) -> Value:
    """The left spine is walked in a loop: a text joined from a thousand pieces is a deep tree."""
    spine: list[ast.BinOp] = [node]
    while isinstance(spine[-1].left, ast.BinOp):
        spine.append(spine[-1].left)
    kinds, first = EXPRESSIONS, spine[-1].left
    value = kinds[first.__class__](walk, first)
    for part in reversed(spine):
        value = binary(walk, part.op, value, kinds[part.right.__class__](walk, part.right))
    return value


def _formatted(walk: Walk, node: ast.JoinedStr) -> Value:
    parts: list[Value] = []
    kinds = EXPRESSIONS
    for item in node.values:
        if item.__class__ is ast.FormattedValue:
            value = kinds[item.value.__class__](walk, item.value)
            if value.origin == "os.environ" and "env-all" in value.taints:
                walk.rec.env(how="format")
        else:
            value = kinds[item.__class__](walk, item)
        parts.append(value)
    return concat(parts)


def _conditional(walk: Walk, node: ast.IfExp) -> Value:
    kinds = EXPRESSIONS
    look_at(walk, node.test)
    return join(kinds[node.body.__class__](walk, node.body), kinds[node.orelse.__class__](walk, node.orelse))


def _boolean(walk: Walk, node: ast.BoolOp) -> Value:
    kinds = EXPRESSIONS
    return join(*[kinds[value.__class__](walk, value) for value in node.values])


def _unary(walk: Walk, node: ast.UnaryOp) -> Value:
    value = EXPRESSIONS[node.operand.__class__](walk, node.operand)
    kind = node.op.__class__
    if kind is ast.Not:
        return Value(consts=tuple([not c for c in value.consts])) if value.consts else UNKNOWN
    if kind is ast.USub:
        return Value(consts=tuple([-n for n in value.numbers]), taints=value.taints)
    if kind is ast.Invert:
        return Value(consts=tuple([~n for n in value.numbers if isinstance(n, int)]), taints=value.taints)
    return value


def _compare(walk: Walk, node: ast.Compare) -> Value:
    kinds = EXPRESSIONS
    left = kinds[node.left.__class__](walk, node.left)
    for part in node.comparators:
        right = kinds[part.__class__](walk, part)
    if len(left.consts) == 1 and len(right.consts) == 1 and len(node.comparators) == 1:
        test = _COMPARISONS.get(type(node.ops[0]))
        try:
            return const(bool(test(left.consts[0], right.consts[0]))) if test is not None else UNKNOWN
        except TypeError:
            return UNKNOWN
    return UNKNOWN


_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


def _lambda(walk: Walk, node: ast.Lambda) -> Value:
    function = FunctionRef(node, walk.scopes, tuple(evaluate(walk, d) for d in node.args.defaults))
    walk.pending.append(function)
    return Value(ref=function)


def _comprehension(walk: Walk, node: ast.ListComp | ast.SetComp | ast.GeneratorExp) -> Value:
    """Walked once a member where the members are known, so that decoding is followed."""
    outer = walk.scopes
    walk.scopes = (*outer, {})
    walk.rec.loops += 1
    try:
        first = node.generators[0]
        source = evaluate(walk, first.iter)
        _note_members(walk, node, source)
        members = _members(source)
        if len(node.generators) == 1 and members and not first.ifs and isinstance(first.target, (ast.Name, ast.Tuple)):
            found = []
            for member in members[:_MAX_COMPREHENSION]:
                walk.bind(first.target, member)
                found.append(evaluate(walk, node.elt))
            return Value(elements=tuple(found), taints=taints_of(found))
        _generators(walk, node.generators, source)
        value = evaluate(walk, node.elt)
        return Value(elements=(value,), taints=value.taints | source.taints)
    finally:
        walk.scopes = outer
        walk.rec.loops -= 1


_LONG = 100_000_000


def _note_members(walk: Walk, node: ast.ListComp | ast.SetComp | ast.GeneratorExp, source: Value) -> None:
    """`[x for x in range(10**10)]`: eight bytes a member at the least."""
    if not isinstance(node, ast.GeneratorExp) and source.origin == "range()" and not node.generators[0].ifs:
        count = max(source.numbers, default=0)
        if count >= _LONG:
            walk.rec.alloc(int(min(count * 8, 1 << 60)), "list")


def _members(source: Value) -> tuple[Value, ...]:
    if source.elements is not None:
        return source.elements
    if len(source.consts) == 1 and isinstance(source.consts[0], (str, bytes)):
        return tuple(Value(consts=(c,), taints=source.taints) for c in source.consts[0][:_MAX_COMPREHENSION])
    return ()


def _generators(walk: Walk, generators: list[ast.comprehension], first: Value) -> None:
    for number, generator in enumerate(generators):
        source = first if number == 0 else evaluate(walk, generator.iter)
        walk.bind(generator.target, iterate(walk, source))
        for test in generator.ifs:
            evaluate(walk, test)


def _dict_comprehension(walk: Walk, node: ast.DictComp) -> Value:
    outer = walk.scopes
    walk.scopes = (*outer, {})
    try:
        _generators(walk, node.generators, evaluate(walk, node.generators[0].iter))
        evaluate(walk, node.key)
        value = evaluate(walk, node.value)
        return Value(elements=(value,), taints=value.taints)
    finally:
        walk.scopes = outer


def _assigned(walk: Walk, node: ast.NamedExpr) -> Value:
    value = evaluate(walk, node.value)
    walk.bind(node.target, value)
    return value


def _yielded(walk: Walk, node: ast.Yield | ast.YieldFrom) -> Value:
    if node.value is not None:
        walk.returned(evaluate(walk, node.value))
    return UNKNOWN


def _awaited(walk: Walk, node: ast.Await) -> Value:
    return evaluate(walk, node.value)


def _called(walk: Walk, node: ast.Call) -> Value:
    return walk.call(walk, node)


EXPRESSIONS: dict[type[ast.expr], Callable[[Walk, Any], Value]] = {
    **dict.fromkeys(ast.expr.__subclasses__(), _generic),
    ast.Constant: _constant,
    ast.Name: _name,
    ast.Attribute: _attribute,
    ast.Subscript: _subscript,
    ast.List: _sequence,
    ast.Tuple: _sequence,
    ast.Set: _sequence,
    ast.Dict: _dictionary,
    ast.BinOp: _binop,
    ast.JoinedStr: _formatted,
    ast.IfExp: _conditional,
    ast.BoolOp: _boolean,
    ast.UnaryOp: _unary,
    ast.Compare: _compare,
    ast.Lambda: _lambda,
    ast.ListComp: _comprehension,
    ast.SetComp: _comprehension,
    ast.GeneratorExp: _comprehension,
    ast.DictComp: _dict_comprehension,
    ast.NamedExpr: _assigned,
    ast.Yield: _yielded,
    ast.YieldFrom: _yielded,
    ast.Await: _awaited,
    ast.Call: _called,
}
"""By the node's class; what is walked most often looks here itself and spares the call of `evaluate`."""
