"""What each kind of statement does to a walk."""

from __future__ import annotations

import ast
from operator import is_
from typing import TYPE_CHECKING, Any

from mayfly.scan.facts import ImportUse, Value
from mayfly.scan.python import loops
from mayfly.scan.python.arithmetic import binary
from mayfly.scan.python.expressions import EXPRESSIONS, evaluate, iterate, look_at
from mayfly.scan.python.names import canonical
from mayfly.scan.python.refs import ClassRef, FunctionRef
from mayfly.scan.values import join, tainted, unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mayfly.scan.python.refs import Scope
    from mayfly.scan.python.walk import Walk

__all__ = ["STATEMENTS", "other_statement", "same"]

_MAX_UNROLL = 64
# Modules whose names matter when a program takes all of them.
_STAR = frozenset({
    "base64", "ctypes", "os", "pathlib", "pickle", "requests", "scapy.all", "shutil", "socket", "subprocess",
    "urllib.request",
})  # fmt: skip


def other_statement(walk: Walk, node: ast.stmt) -> None:
    """A statement without a rule of its own: its expressions and bodies are walked."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.expr):
            evaluate(walk, child)
        elif isinstance(child, ast.stmt):
            walk.body([child])


def _expression(walk: Walk, node: ast.Expr) -> None:
    look_at(walk, node.value)


def _assign(walk: Walk, node: ast.Assign) -> None:
    value = EXPRESSIONS[node.value.__class__](walk, node.value)
    for target in node.targets:
        if target.__class__ is ast.Name:
            walk.scopes[-1][target.id] = value
        else:
            walk.bind(target, value)


def _annotated(walk: Walk, node: ast.AnnAssign) -> None:
    if node.value is not None:
        walk.bind(node.target, evaluate(walk, node.value))


def _augmented(walk: Walk, node: ast.AugAssign) -> None:
    load: Any = node.target
    old = evaluate(walk, load)
    value = binary(walk, node.op, old, evaluate(walk, node.value))
    # Inside a loop the value of the first turn is only one of many.
    if walk.rec.loops and value.consts and not isinstance(value.consts[0], (str, bytes)):
        value = unknown(*value.taints)
    walk.bind(node.target, value)


def _if(walk: Walk, node: ast.If) -> None:
    look_at(walk, node.test)
    walk.branches(node.body, node.orelse)


def _for(walk: Walk, node: ast.For | ast.AsyncFor) -> None:
    source = evaluate(walk, node.iter)
    members = source.elements
    loops.note_for(walk.rec, node, source)
    if members and len(members) <= _MAX_UNROLL and _simple(node.body):
        for member in members:
            walk.bind(node.target, member)
            walk.body(node.body)
        return
    walk.bind(node.target, iterate(walk, source))
    walk.repeat(node.body)
    walk.body(node.orelse)


def _simple(body: Sequence[ast.stmt]) -> bool:
    """Assignments to names only: a decoding loop, worth walking turn by turn."""
    return all(
        (isinstance(s, ast.Assign) and isinstance(s.targets[0], ast.Name))
        or (isinstance(s, ast.AugAssign) and isinstance(s.target, ast.Name))
        for s in body
    )


def _while(walk: Walk, node: ast.While) -> None:
    walk.rec.loops += 1
    test = evaluate(walk, node.test)
    walk.rec.loops -= 1
    loops.note_while(walk, node, test)
    walk.repeat(node.body)
    walk.body(node.orelse)


def _with(walk: Walk, node: ast.With | ast.AsyncWith) -> None:
    for item in node.items:
        value = evaluate(walk, item.context_expr)
        if item.optional_vars is not None:
            walk.bind(item.optional_vars, value)
    walk.body(node.body)


def _try(walk: Walk, node: ast.Try) -> None:
    kept, escapes = walk.guarded, walk.escapes
    walk.guarded = kept or bool(node.handlers)
    # `while True: queue.pop()` in a `try` ends with the exception that is waited for.
    walk.escapes = escapes or any(_names_an_end(handler) for handler in node.handlers)
    walk.body(node.body)
    walk.guarded, walk.escapes = kept, escapes
    walk.body(node.orelse)
    scope = walk.scopes[-1]
    before = dict(scope)
    for handler in node.handlers:
        if handler.name:
            scope[handler.name] = _ERROR
        walk.body(handler.body)
    if not same(scope, before):
        for name, value in before.items():
            after = scope.get(name)
            if after is not None and after is not value:
                scope[name] = join(value, after)
    walk.body(node.finalbody)


_ERROR = unknown("error")


def same(one: Scope, other: Scope) -> bool:
    """True when the names stand for the very same values."""
    return len(one) == len(other) and all(map(is_, one.values(), other.values())) and one.keys() == other.keys()


def _names_an_end(handler: ast.ExceptHandler) -> bool:
    """True for exceptions by which containers, iterators and files say that nothing is left."""
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    names = {kind.attr if isinstance(kind, ast.Attribute) else getattr(kind, "id", "") for kind in kinds if kind}
    return bool(names & {"IndexError", "KeyError", "StopIteration", "StopAsyncIteration", "EOFError", "Empty"})


def _function(walk: Walk, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
    spec = node.args
    defaults: tuple[Value, ...] = ()
    if spec.defaults or spec.kw_defaults:
        defaults = tuple([evaluate(walk, d) for d in (*spec.defaults, *spec.kw_defaults) if d is not None])
    function = FunctionRef(node, walk.scopes, defaults)
    walk.pending.append(function)
    value = Value(ref=function)
    for decorator in reversed(node.decorator_list):
        evaluate(walk, decorator)
    # In a class a method's name does not stand for itself: `def open(self): return open(self.path)`.
    if walk.scopes[-1] is not walk.class_scope:
        loops.note_recursion(walk, node)
    walk.scopes[-1][node.name] = value


def _class(walk: Walk, node: ast.ClassDef) -> None:
    bases = tuple(evaluate(walk, base) for base in node.bases)
    made = ClassRef(node, bases=bases)
    for base in bases:
        if isinstance(base.ref, ClassRef):
            made.names.update(base.ref.names)
    outer = walk.scopes
    walk.scopes = (*outer, made.names)
    kept, walk.pending = walk.pending, []
    outer_class, walk.class_scope = walk.class_scope, made.names
    walk.body(node.body)
    walk.class_scope = outer_class
    methods, walk.pending = walk.pending, kept
    walk.scopes = outer
    instance = Value(ref=_instance(made))
    for method in methods:
        static = any(
            isinstance(d, ast.Name) and d.id == "staticmethod" for d in getattr(method.node, "decorator_list", ())
        )
        method.scopes = outer
        method.bound = None if static else instance
        walk.pending.append(method)
    walk.scopes[-1][node.name] = Value(ref=made)


def _instance(cls: ClassRef) -> ClassRef:
    return ClassRef(cls.node, cls.names, cls.bases, instance=True)


def _return(walk: Walk, node: ast.Return) -> None:
    if (value := node.value) is not None:
        walk.returned(EXPRESSIONS[value.__class__](walk, value))


def _import(walk: Walk, node: ast.Import) -> None:
    rec = walk.rec
    for alias in node.names:
        rec.facts.append(
            ImportUse(
                module=alias.name,
                guarded=walk.guarded,
                line=alias.lineno,
                column=alias.col_offset + 1,
                depth=rec.depth,
            )
        )
        shown = alias.name if alias.asname else alias.name.partition(".")[0]
        walk.scopes[-1][alias.asname or shown] = Value(origin=shown)


def _import_from(walk: Walk, node: ast.ImportFrom) -> None:
    rec = walk.rec
    module = node.module or ""
    if not node.level and module:
        rec.facts.append(
            ImportUse(module=module, guarded=walk.guarded, line=rec.line, column=rec.column, depth=rec.depth)
        )
    for alias in node.names:
        if alias.name == "*":
            walk.stars += [module] if module in _STAR else []
        else:
            walk.scopes[-1][alias.asname or alias.name] = Value(origin=canonical(f"{module}.{alias.name}"))


def _assert(walk: Walk, node: ast.Assert) -> None:
    look_at(walk, node.test)
    if node.msg is not None:
        look_at(walk, node.msg)


def _match(walk: Walk, node: ast.Match) -> None:
    subject = evaluate(walk, node.subject)
    for case in node.cases:
        for part in ast.walk(case.pattern):
            name = getattr(part, "name", None) or getattr(part, "rest", None)
            if isinstance(name, str):
                walk.scopes[-1][name] = tainted(unknown(), *subject.taints)
        if case.guard is not None:
            evaluate(walk, case.guard)
    walk.branches(*(case.body for case in node.cases))


def _delete(walk: Walk, node: ast.Delete) -> None:
    for target in node.targets:
        evaluate(walk, target)
        if isinstance(target, ast.Name):
            walk.scopes[-1].pop(target.id, None)


STATEMENTS: dict[type[ast.stmt], Callable[[Walk, Any], None]] = {
    ast.Expr: _expression,
    ast.Assign: _assign,
    ast.AnnAssign: _annotated,
    ast.AugAssign: _augmented,
    ast.If: _if,
    ast.For: _for,
    ast.AsyncFor: _for,
    ast.While: _while,
    ast.With: _with,
    ast.AsyncWith: _with,
    ast.Try: _try,
    ast.TryStar: _try,
    ast.FunctionDef: _function,
    ast.AsyncFunctionDef: _function,
    ast.ClassDef: _class,
    ast.Return: _return,
    ast.Import: _import,
    ast.ImportFrom: _import_from,
    ast.Assert: _assert,
    ast.Match: _match,
    ast.Delete: _delete,
    ast.Pass: lambda _walk, _node: None,
    ast.Break: lambda _walk, _node: None,
    ast.Continue: lambda _walk, _node: None,
    ast.Global: lambda _walk, _node: None,
    ast.Nonlocal: lambda _walk, _node: None,
}
