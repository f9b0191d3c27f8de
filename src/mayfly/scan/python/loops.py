"""Loops that nothing ends, growth without end, recursion without a floor."""

from __future__ import annotations

import ast
import re
from collections import Counter
from functools import lru_cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mayfly.scan.facts import Value
    from mayfly.scan.python.walk import Walk
    from mayfly.scan.recorder import Recorder

__all__ = ["may_be_endless", "may_grow", "note_for", "note_recursion", "note_while", "recursion_place"]

_ENDLESS_SOURCES = frozenset({"itertools.count()", "itertools.cycle()", "itertools.repeat()"})
_ENDING_CALLS = frozenset({"exit", "quit", "_exit", "abort", "execv", "execve", "execl", "execvp"})
_WAITING = frozenset({
    "input", "recv", "accept", "get", "readline", "wait", "select", "poll", "join", "recvfrom", "read", "listen",
    "update", "mainloop", "next", "tick", "consume", "wait_for", "get_message", "receive", "recv_into", "acquire",
})  # fmt: skip
_GROWING = frozenset({"append", "extend", "insert", "add", "appendleft", "push", "setdefault", "update"})
_SPAWNING = frozenset({"fork", "Popen", "Process", "Thread", "start", "spawn", "system", "submit", "apply_async"})
_WRITING = frozenset({"write", "writelines", "write_text", "write_bytes", "dump"})
_LONG = 100_000_000
_LONG_TEXT = 20_000
_CALLED = re.compile(r"([^\W\d]\w*)[ ]?\(")
_Scope = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)
_LEAVES = frozenset({ast.Name, ast.Constant, ast.Pass, ast.Break, ast.Continue, ast.Global, ast.Nonlocal, ast.alias})
_Loop = (ast.For, ast.AsyncFor, ast.While)
_LEAVING = frozenset({ast.Return, ast.Raise, ast.Yield, ast.YieldFrom, ast.Await})
_VALUED = frozenset({ast.Expr, ast.Assign, ast.Return, ast.AugAssign})
_PASSED_OVER = frozenset({ast.Pass, ast.Import, ast.ImportFrom, ast.AnnAssign})


# Of the nodes that are met most: the parts that hold nodes, none of them None. The others are asked for their fields.
_PARTS: dict[type, Callable[[Any], tuple[Any, ...]]] = {
    ast.Assign: attrgetter("targets", "value"),
    ast.AugAssign: attrgetter("target", "value"),
    ast.BinOp: attrgetter("left", "right"),
    ast.BoolOp: lambda node: (node.values,),
    ast.Compare: attrgetter("left", "comparators"),
    ast.ExceptHandler: lambda node: (node.type, node.body) if node.type is not None else (node.body,),
    ast.For: attrgetter("target", "iter", "body", "orelse"),
    ast.If: attrgetter("test", "body", "orelse"),
    ast.IfExp: attrgetter("test", "body", "orelse"),
    ast.JoinedStr: lambda node: (node.values,),
    ast.List: lambda node: (node.elts,),
    ast.Subscript: attrgetter("value", "slice"),
    ast.Try: attrgetter("body", "handlers", "orelse", "finalbody"),
    ast.Tuple: lambda node: (node.elts,),
    ast.UnaryOp: lambda node: (node.operand,),
    ast.While: attrgetter("test", "body", "orelse"),
    ast.With: attrgetter("items", "body"),
}
_HOLDERS = frozenset({ast.Attribute, ast.Await, ast.Expr, ast.Return, ast.Starred, ast.keyword})


def _children(node: ast.AST) -> list[ast.AST]:
    """The nodes below a node that are statements and expressions; the rest says nothing here."""
    kind = node.__class__
    if kind in _LEAVES:
        return []
    if kind is ast.Call:
        return [node.func, *node.args, *node.keywords]  # type: ignore[attr-defined]
    if kind in _HOLDERS:
        return [below] if (below := node.value) is not None else []  # type: ignore[attr-defined]
    if (parts := _PARTS.get(kind)) is not None:
        found = []
        for part in parts(node):
            if part.__class__ is list:
                found += part
            else:
                found.append(part)
        return found
    found = []
    for name in node._fields:
        value = getattr(node, name, None)
        if value.__class__ is list:
            found += [part for part in value if isinstance(part, ast.AST)]
        elif name != "ctx" and isinstance(value, ast.AST):
            found.append(value)
    return found


def _inside(body: list[ast.stmt]) -> Iterator[tuple[ast.AST, bool]]:
    """Every node of a body except other functions' bodies; the flag is true inside an inner loop."""
    stack: list[tuple[ast.AST, bool]] = [(node, False) for node in body]
    while stack:
        node, inner = stack.pop()
        yield node, inner
        kind = node.__class__
        if kind in _LEAVES or kind in _Scope:
            continue
        inner = inner or kind in _Loop
        stack += [(child, inner) for child in _children(node)]


def _ends(body: list[ast.stmt]) -> bool:
    """True when something in the body can leave the loop."""
    for node, inner in _inside(body):
        kind = node.__class__
        if kind in _LEAVING or (kind is ast.Break and not inner):
            return True
        if kind is ast.Call and _last_name(node.func) in _ENDING_CALLS:  # type: ignore[attr-defined]
            return True
    return False


def _last_name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _does(body: list[ast.stmt]) -> set[str]:
    """What the body of an endless loop does."""
    found: set[str] = set()
    for node, _ in _inside(body):
        if isinstance(node, ast.Call):
            name = _last_name(node.func)
            for word, names in (("wait", _WAITING), ("grow", _GROWING), ("spawn", _SPAWNING), ("write", _WRITING)):
                if name in names:
                    found.add(word)
            found.add("call")
        elif isinstance(node, ast.AugAssign) and isinstance(node.op, (ast.Add, ast.Mult)):
            if isinstance(node.value, (ast.List, ast.ListComp, ast.JoinedStr)) or (
                isinstance(node.value, ast.Constant) and isinstance(node.value.value, (str, bytes))
            ):
                found.add("grow")
            if isinstance(node.value, ast.BinOp) and isinstance(node.value.op, ast.Mult):
                found.add("grow")
    return found


def note_while(walk: Walk, node: ast.While, test: Value) -> None:
    """Record a `while` that cannot end: a condition that stays true, and no way out of the body."""
    if id(node) in walk.loops_seen:
        return
    walk.loops_seen.add(id(node))
    constant = bool(test.consts) and all(bool(c) for c in test.consts) and not _names(node.test)
    if not constant and not _unchanging(walk, node, test):
        return
    if not _ends(node.body) and not walk.escapes:
        walk.rec.line, walk.rec.column = node.lineno, node.col_offset + 1
        walk.rec.loop(_does(node.body))


def _names(test: ast.expr) -> set[str]:
    return {n.id for n in ast.walk(test) if isinstance(n, ast.Name)}


def _unchanging(walk: Walk, node: ast.While, test: Value) -> bool:
    """True when the condition is made of names with known plain values that the body never touches."""
    if any(isinstance(n, (ast.Call, ast.Attribute, ast.Subscript, ast.NamedExpr)) for n in ast.walk(node.test)):
        return False
    names = _names(node.test)
    if not names or (test.consts and not all(test.consts)):
        return False
    for name in names:
        consts = walk.lookup(name).consts
        if not consts or not all(isinstance(c, (int, float, str, bool)) for c in consts):
            return False
    changed = {n.id for s in node.body for n in ast.walk(s) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    shared = any(isinstance(n, (ast.Global, ast.Nonlocal)) for s in node.body for n in ast.walk(s))
    # A name of the module may be changed by a function that the loop calls.
    calls = len(walk.scopes) == 1 and _calls_own_function(walk, node.body)
    return not (names & changed) and not shared and not calls


def _calls_own_function(walk: Walk, body: list[ast.stmt]) -> bool:
    for statement in body:
        for node in ast.walk(statement):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and walk.lookup(node.func.id).ref:
                return True
    return False


def note_for(rec: Recorder, node: ast.For | ast.AsyncFor, source: Value) -> None:
    """Record a `for` over something endless, or over a list that its own body lengthens."""
    grows = False
    if isinstance(node.iter, ast.Name):
        name = node.iter.id
        grows = any(
            isinstance(n, ast.Call)
            and isinstance(n.func, ast.Attribute)
            and n.func.attr in ("append", "extend", "insert")
            and isinstance(n.func.value, ast.Name)
            and n.func.value.id == name
            for n, inner in _inside(node.body)
            if not inner
        ) and not any(isinstance(n, ast.If) for n, _ in _inside(node.body))
    if (grows or source.origin in _ENDLESS_SOURCES) and not _ends(node.body):
        rec.line, rec.column = node.lineno, node.col_offset + 1
        rec.loop(_does(node.body) | ({"grow"} if grows else set()))
    elif source.origin == "range()" and max(source.numbers[:1], default=0) >= _LONG // 10 and not _ends(node.body):
        does = _does(node.body)
        if source.numbers[0] >= _LONG or "grow" in does:
            rec.loop(does, kind="long")


def note_recursion(walk: Walk, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
    """Record a function that calls itself before anything could have stopped it."""
    if (place := recursion_place(node, walk.text)) is not None:
        walk.rec.line, walk.rec.column = place.lineno, place.col_offset + 1
        walk.rec.loop({"call"}, kind="recursion")


def recursion_place(node: ast.FunctionDef | ast.AsyncFunctionDef, text: str) -> ast.stmt | None:
    """The statement by which a function calls itself before anything could have stopped it; None in all others."""
    called = None
    for statement in node.body:
        kind = statement.__class__
        if kind in _VALUED:
            value = statement.value  # type: ignore[attr-defined]
            if value is not None and value.__class__ not in _LEAVES:
                if called is None:
                    called = _may_be_called(node.name, text)
                if not called:
                    return None
                if _always_calls(value, node.name):
                    return statement
            if kind is ast.Return:
                return None
        elif kind not in _PASSED_OVER:
            return None
    return None


def may_be_endless(node: ast.While) -> bool:
    """False only when `note_while` would record nothing, whatever the names stand for."""
    names: set[str] = set()
    for part in ast.walk(node.test):
        if isinstance(part, (ast.Call, ast.Attribute, ast.Subscript, ast.NamedExpr)):
            return False
        if isinstance(part, ast.Name):
            names.add(part.id)
    stack: list[ast.AST] = [*node.body]
    while stack:
        below = stack.pop()
        if below.__class__ is ast.Name:
            if below.id in names and below.ctx.__class__ is ast.Store:
                return False
        else:
            stack += _children(below)
    return not _ends(node.body)


def may_grow(node: ast.For) -> bool:
    """False only when `note_for` would record nothing for a loop over what is neither endless nor long."""
    if not isinstance(node.iter, ast.Name):
        return False
    name = node.iter.id
    return any(
        isinstance(n, ast.Attribute)
        and n.attr in ("append", "extend", "insert")
        and isinstance(n.value, ast.Name)
        and n.value.id == name
        for n, _ in _inside(node.body)
    )


def _may_be_called(name: str, text: str) -> bool:
    """False when nobody calls a function of this name, for it stands there but once."""
    return _mentions(name, text) >= 2 or (len(text) < _LONG_TEXT and f"{name} (" in text)


def _mentions(name: str, text: str) -> int:
    """How often `name(` stands in the text; in a long one all names are counted at once."""
    return text.count(f"{name}(") if len(text) < _LONG_TEXT else _all_mentions(text)[name]


@lru_cache(maxsize=1)
def _all_mentions(text: str) -> Counter[str]:
    return Counter(_CALLED.findall(text))


_NOT_ALWAYS = frozenset({*_Scope, ast.IfExp, ast.BoolOp, ast.GeneratorExp, ast.ListComp, ast.DictComp, ast.SetComp})


def _always_calls(value: ast.expr, name: str) -> bool:
    stack: list[ast.AST] = [value]
    while stack:
        node = stack.pop()
        kind = node.__class__
        if kind in _LEAVES or kind in _NOT_ALWAYS:
            continue
        if kind is ast.Call:
            called = node.func  # type: ignore[attr-defined]
            if called.__class__ is ast.Name and called.id == name:
                return True
        stack += _children(node)
    return False
