"""Walks a JavaScript tree, keeping what is known of its names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mayfly.scan.facts import UNKNOWN, ImportUse, Value
from mayfly.scan.javascript.nodes import NODES
from mayfly.scan.javascript.source_text import text_of
from mayfly.scan.values import elements_of, join, taints_of, unknown

if TYPE_CHECKING:
    import tree_sitter

    from mayfly.scan.recorder import Recorder

__all__ = ["ScriptWalk"]

_MAX_STEPS = 60_000
_MAX_NEST = 150
_MAX_INLINE = 6


class ScriptWalk:
    """The state of one walk: names, and where facts go."""

    def __init__(self, rec: Recorder) -> None:
        self.rec = rec
        self.names: dict[str, Value] = {}
        self._steps = 0
        self._nest = 0
        self._active: list[int] = []
        self._done: set[int] = set()
        self.functions: list[tree_sitter.Node] = []
        self.returned: list[list[Value]] = []

    def program(self, root: tree_sitter.Node) -> None:
        """Walk the program, then the functions that nothing called."""
        self.children(root)
        number = 0
        while number < len(self.functions):
            function = self.functions[number]
            number += 1
            if function.id not in self._done:
                self.inline(function, [])

    def children(self, node: tree_sitter.Node) -> Value:
        """Evaluate every named child; the value carries what they carry."""
        taints = taints_of([self.value(child) for child in node.named_children])
        return Value(taints=taints) if taints else UNKNOWN

    def value(self, node: tree_sitter.Node | None) -> Value:
        """What is known of a node."""
        self._steps += 1
        if node is None:
            return UNKNOWN
        if self._steps > _MAX_STEPS or self._nest > _MAX_NEST:
            self.rec.overrun()
            return UNKNOWN
        self._nest += 1
        try:
            handler = NODES.get(node.type)
            return handler(self, node) if handler is not None else self.children(node)
        finally:
            self._nest -= 1

    def at(self, node: tree_sitter.Node) -> None:
        """Facts that follow stand here."""
        self.rec.line, self.rec.column = node.start_point[0] + 1, node.start_point[1] + 1

    def inline(self, function: tree_sitter.Node, args: list[Value]) -> Value:
        """Walk a function's body with these arguments; the value is what it returns."""
        if function.id in self._active or len(self._active) >= _MAX_INLINE:
            return UNKNOWN
        self._done.add(function.id)
        self._active.append(function.id)
        self.returned.append([])
        kept = dict(self.names)
        try:
            self._bind_parameters(function, args)
            body = function.child_by_field_name("body")
            result = self.value(body)
            returned = self.returned[-1]
            if returned:
                return join(*returned)
            return result if body is not None and body.type != "statement_block" else UNKNOWN
        finally:
            self.returned.pop()
            self._active.pop()
            for name, value in kept.items():
                self.names.setdefault(name, value)

    def _bind_parameters(self, function: tree_sitter.Node, args: list[Value]) -> None:
        holder = function.child_by_field_name("parameters") or function.child_by_field_name("parameter")
        if holder is None:
            return
        parameters = holder.named_children if holder.type == "formal_parameters" else [holder]
        for number, parameter in enumerate(parameters):
            target = parameter.child_by_field_name("pattern") or parameter.child_by_field_name("left") or parameter
            self.bind(target, args[number] if number < len(args) else unknown("param"))

    def bind(self, target: tree_sitter.Node, value: Value) -> None:
        """Give a value to a name or a pattern."""
        if target.type in ("identifier", "shorthand_property_identifier_pattern"):
            self.names[text_of(target)] = value
        elif target.type == "object_pattern":
            for child in target.named_children:
                key = child.child_by_field_name("key")
                goal = child.child_by_field_name("value") or child
                name = text_of(key if key is not None else child)
                origin = f"{value.origin}.{name}" if value.origin else ""
                self.bind(goal, Value(origin=origin, taints=value.taints))
        elif target.type == "array_pattern":
            for child in target.named_children:
                self.bind(child, elements_of(value))
        elif target.type == "member_expression":
            base = target.child_by_field_name("object")
            prop = target.child_by_field_name("property")
            if base is not None and base.type == "this" and prop is not None:
                self.names["this." + text_of(prop)] = value
            else:
                self.value(target)

    def property_of(self, base: Value, name: str, node: tree_sitter.Node) -> Value:
        """A property by its name."""
        if name in ("__proto__", "constructor", "mainModule", "binding", "_load"):
            self.at(node)
            if name in ("mainModule", "binding", "_load") or base.origin.endswith("constructor"):
                self.rec.inside("__globals__" if name != "constructor" else "__subclasses__")
        if base.keys and base.elements and name in base.keys:
            return base.elements[min(base.keys.index(name), len(base.elements) - 1)]
        if base.origin == "this" and (known := self.names.get("this." + name)) is not None:
            return known
        origin = f"{base.origin}.{name}"[-200:] if base.origin else f"?.{name}"
        if origin == "process.env":
            return Value(origin=origin, taints=frozenset({"env-all"}))
        if origin.startswith("process.env."):
            self.at(node)
            self.rec.env(name)
            return unknown("env")
        if origin in ("process.argv", "process.stdin"):
            return Value(origin=origin, taints=frozenset({"input"}))
        return Value(origin=origin, taints=base.taints)

    def note_import(self, module: str) -> None:
        """A module is loaded; scripts of this language are not checked against the image."""
        if module:
            self.rec.facts.append(
                ImportUse(module="js:" + module, guarded=True, line=self.rec.line, column=self.rec.column)
            )
