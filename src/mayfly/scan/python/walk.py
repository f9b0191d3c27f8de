"""The state of one walk over a Python program, and its statements."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any, NamedTuple

from mayfly.scan.facts import UNKNOWN, Value
from mayfly.scan.judge import DANGEROUS_NAMES
from mayfly.scan.python.expressions import EXPRESSIONS, evaluate, iterate
from mayfly.scan.python.refs import ClassRef, FunctionRef, Scope
from mayfly.scan.python.statements import STATEMENTS, other_statement, same
from mayfly.scan.values import join, unknown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mayfly.scan.recorder import Recorder

__all__ = ["Walk"]

_MAX_STEPS = 30_000

_MAX_INLINE = 8

_MAX_RUNS = 4

_MAX_COPIED = 10_000_000
"""Names kept aside for branches in all; past it alternatives are walked one after the other."""

_Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


class Walk:
    """What is known so far: names by scope, functions met, and where the facts go."""

    def __init__(self, rec: Recorder, text: str) -> None:
        self.rec = rec
        self.text = text
        self.scopes: tuple[Scope, ...] = ({},)
        self.stars: list[str] = []
        self.pending: list[FunctionRef] = []
        self.guarded = False
        self.escapes = False
        self.class_scope: Scope | None = None
        self._runs: dict[int, int] = {}
        self._results: dict[int, Value] = {}
        self._active: list[int] = []
        self._quiet: set[int] = set()
        self.loops_seen: set[int] = set()
        self._returns: list[list[Value]] = []
        self._steps = 0
        self._copied = 0
        self.constants: dict[tuple[type, Any], Value] = {}
        self.texts: dict[str, Value] = {}
        self._free: dict[str, Value] = {}
        self._parameters: dict[int, _Parameters] = {}
        # Looked up once a walk: the tables' modules import the walk's.
        from mayfly.scan.python.calls import call
        from mayfly.scan.python.table import METHODS, TABLE

        self.call = call
        self.table = TABLE
        self.methods = METHODS

    def program(self, statements: Sequence[ast.stmt]) -> None:
        """Walk the module's statements, then the functions that nothing called, with unknown arguments."""
        self.body(statements)
        done = 0
        while done < len(self.pending):
            function = self.pending[done]
            done += 1
            if id(function.node) not in self._runs:
                self.inline(function, _from_outside(function), {})

    def body(self, statements: Sequence[ast.stmt]) -> None:
        """Walk statements in order."""
        table, rec = STATEMENTS, self.rec
        for statement in statements:
            self._steps += 1
            if self._steps > _MAX_STEPS:
                rec.overrun()
                return
            rec.line, rec.column = statement.lineno, statement.col_offset + 1
            table.get(statement.__class__, other_statement)(self, statement)

    def lookup(self, name: str) -> Value:
        """What a name stands for: a variable, an import, or a builtin by its own name."""
        for scope in reversed(self.scopes):
            if (value := scope.get(name)) is not None:
                return value
        if not self.stars and (value := self._free.get(name)) is not None:
            return value
        for module in self.stars:
            if name in _star_names(module):
                return Value(origin=f"{module}.{name}")
        if name == "__file__":
            return Value(taints=frozenset({"self"}), origin=name)
        value = self._free[name] = Value(origin=name)
        return value

    def bind(self, target: ast.expr, value: Value) -> None:
        """Give a value to a target: a name, an attribute of an instance, an item, or a tuple of these."""
        if isinstance(target, ast.Name):
            self.scopes[-1][target.id] = value
        elif isinstance(target, ast.Attribute):
            base = EXPRESSIONS[target.value.__class__](self, target.value)
            if isinstance(base.ref, ClassRef):
                old = base.ref.names.get(target.attr)
                base.ref.names[target.attr] = value if old is None else join(value, old)
            elif base.origin:
                self.rec.call("set-attribute", [Value(consts=(f"{base.origin}.{target.attr}",)), value])
        elif isinstance(target, (ast.Tuple, ast.List)):
            self._bind_many(target.elts, value)
        elif isinstance(target, ast.Starred):
            self.bind(target.value, value)
        elif isinstance(target, ast.Subscript):
            self._bind_item(target, value)

    def _bind_item(self, target: ast.Subscript, value: Value) -> None:
        """`names[key] = value`: what a name stands for gets one member more."""
        base = evaluate(self, target.value)
        key = evaluate(self, target.slice)
        if base.origin == "os.environ":
            for name in key.texts[:4]:
                self.rec.call(f"set-{name}"[:100], [value])
        if isinstance(target.value, ast.Name) and (value.taints or value.consts):
            self.scopes[-1][target.value.id] = Value(
                consts=base.consts,
                prefix=base.prefix,
                taints=base.taints | value.taints,
                origin=base.origin,
                elements=((base.elements or ()) + (value,))[-256:],
                keys=base.keys,
                ref=base.ref,
            )

    def _bind_many(self, targets: list[ast.expr], value: Value) -> None:
        members = value.elements
        exact = (
            members is not None
            and len(members) == len(targets)
            and not any(isinstance(t, ast.Starred) for t in targets)
        )
        one = iterate(self, value) if not exact else UNKNOWN
        for number, target in enumerate(targets):
            self.bind(target, members[number] if exact and members is not None else one)

    def inline(self, function: FunctionRef, args: list[Value], kwargs: dict[str, Value]) -> Value:
        """Walk a function's body with these arguments; the value is what it may return."""
        node = function.node
        key = id(node)
        runs = self._runs.get(key, 0)
        if runs and key in self._quiet and not any(_telling(value) for value in (*args, *kwargs.values())):
            return UNKNOWN
        if key in self._active or len(self._active) >= _MAX_INLINE or runs >= _MAX_RUNS:
            return self._results.get(key, unknown(*(t for a in args for t in a.taints)))
        self._runs[key] = runs + 1
        before = len(self.rec.facts)
        if function.bound is not None:
            args = [function.bound, *args]
        kept = (self.scopes, self.rec.line, self.rec.column, self.rec.loops)
        escapes, self.escapes = self.escapes, False
        if (spec := self._parameters.get(key)) is None:
            spec = self._parameters[key] = _parameters(node.args)
        self.scopes = (*function.scopes, _arguments(spec, function.defaults, args, kwargs))
        self._active.append(key)
        self._returns.append([])
        try:
            if isinstance(node, ast.Lambda):
                self._returns[-1].append(evaluate(self, node.body))
            else:
                self.body(node.body)
            returned = self._returns[-1]
            result = join(*returned) if returned else UNKNOWN
        finally:
            self._returns.pop()
            self._active.pop()
            self.scopes, self.rec.line, self.rec.column, self.rec.loops = kept
            self.escapes = escapes
        self._results[key] = result
        if len(self.rec.facts) == before:
            self._quiet.add(key)
        if isinstance(node, ast.FunctionDef) and node.name in ("__reduce__", "__reduce_ex__") and result.elements:
            self._note_payload(result.elements[0])
        return result

    def _note_payload(self, function: Value) -> None:
        if function.origin in DANGEROUS_NAMES:
            self.rec.call("reduce-callable", [function])

    def returned(self, value: Value) -> None:
        """A `return` or `yield` of the function being walked."""
        if self._returns:
            self._returns[-1].append(value)

    def branches(self, *bodies: Sequence[ast.stmt]) -> None:
        """Walk alternatives, each from the same start, and join what they leave behind."""
        scope = self.scopes[-1]
        self._copied += len(scope) * len(bodies)
        if self._copied > _MAX_COPIED:
            for body in bodies:
                self.body(body)
            return
        start = dict(scope)
        if len(bodies) == 2 and not bodies[1]:
            self.body(bodies[0])
            _rejoin(scope, start)
            return
        outcomes: list[Scope] = []
        for body in bodies:
            if not body:
                outcomes.append(start)
                continue
            self.body(body)
            if same(scope, start):
                outcomes.append(start)
                continue
            outcomes.append(dict(scope))
            scope.clear()
            scope.update(start)
        changed: set[str] = set()
        for outcome in outcomes:
            if outcome is not start:
                changed.update([name for name, v in outcome.items() if start.get(name) is not v])
        for name in changed:
            values = [outcome[name] for outcome in outcomes if name in outcome]
            first = values[0]
            scope[name] = first if len(values) == 1 else join(*reversed(values))

    def repeat(self, statements: Sequence[ast.stmt]) -> None:
        """Walk a loop's body once."""
        self.rec.loops += 1
        self.body(statements)
        self.rec.loops -= 1


_HANDLERS = frozenset({"event", "message_handler", "on_message", "on", "command", "channel_post_handler", "consumer"})


def _from_outside(function: FunctionRef) -> list[Value]:
    """What a bot's or a server's handler is called with came over the network."""
    node = function.node
    if isinstance(node, ast.Lambda):
        return []
    names = [d.func if isinstance(d, ast.Call) else d for d in node.decorator_list]
    if not any(isinstance(n, ast.Attribute) and n.attr in _HANDLERS for n in names):
        return []
    return [unknown("net")] * (len(node.args.posonlyargs) + len(node.args.args))


def _telling(value: Value) -> bool:
    """True when an argument could change what a function does that did nothing of note so far."""
    stack = [value]
    seen: set[int] = set()
    while stack:
        one = stack.pop()
        if one.taints or one.ref is not None or one.origin:
            return True
        members = one.elements
        if members is None:
            if any(isinstance(c, (str, bytes)) and len(c) >= 5 for c in one.consts):
                return True
        elif len(members) >= 6:
            return True
        elif id(members) not in seen:  # lists that hold one list twice are looked into once
            seen.add(id(members))
            stack += members
    return False


def _rejoin(scope: Scope, start: Scope) -> None:
    """What a body that may not have run has left behind, joined with what was there before."""
    if same(scope, start):
        return
    for name, before in start.items():
        if (after := scope.get(name)) is None:
            scope[name] = before
        elif after is not before:
            scope[name] = join(before, after)


def _star_names(module: str) -> frozenset[str]:
    from mayfly.scan.python.table import TABLE

    start = module + "."
    return frozenset(name[len(start) :].partition(".")[0] for name in TABLE if name.startswith(start))


class _Parameters(NamedTuple):
    """A function's parameters: by position, the scope that they make, which have defaults, and `*args`, `**kwargs`."""

    names: list[str]
    scope: Scope
    defaulted: list[str]
    rest: str
    rest_by_name: str


def _parameters(spec: ast.arguments) -> _Parameters:
    names = [a.arg for a in spec.args]
    if spec.posonlyargs:
        names = [a.arg for a in spec.posonlyargs] + names
    defaulted = names[len(names) - len(spec.defaults) :] if spec.defaults else []
    scope: Scope = dict.fromkeys(names, _PARAMETER)
    if spec.kwonlyargs:
        scope.update(dict.fromkeys([a.arg for a in spec.kwonlyargs], _PARAMETER))
        defaulted += [a.arg for a, d in zip(spec.kwonlyargs, spec.kw_defaults, strict=True) if d]
    rest, rest_by_name = spec.vararg, spec.kwarg
    return _Parameters(names, scope, defaulted, rest.arg if rest else "", rest_by_name.arg if rest_by_name else "")


_PARAMETER = unknown("param")


def _arguments(spec: _Parameters, defaults: tuple[Value, ...], args: list[Value], kwargs: dict[str, Value]) -> Scope:
    """The scope that a call's arguments make; a parameter that nothing is known of is marked `param`."""
    names = spec.names
    scope = spec.scope.copy()
    if defaults:
        scope.update(zip(spec.defaulted, defaults, strict=False))
    scope.update(zip(names, args, strict=False))
    if kwargs:
        scope.update({name: value for name, value in kwargs.items() if name in spec.scope})
    if spec.rest:
        rest = tuple(args[len(names) :])
        scope[spec.rest] = Value(elements=rest) if rest else _PARAMETER
    if spec.rest_by_name:
        scope[spec.rest_by_name] = Value(elements=tuple(kwargs.values())) if kwargs else _PARAMETER
    return scope
