"""What each kind of JavaScript node is worth."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from mayfly.scan.facts import UNKNOWN, Value
from mayfly.scan.javascript.calls import perform
from mayfly.scan.javascript.source_text import text_of, unescape
from mayfly.scan.values import concat, elements_of, join, taints_of

if TYPE_CHECKING:
    from collections.abc import Callable

    import tree_sitter

    from mayfly.scan.javascript.walk import ScriptWalk

__all__ = ["NODES"]

_FUNCTIONS = frozenset({
    "function_declaration", "function_expression", "arrow_function", "method_definition", "generator_function",
    "generator_function_declaration", "function",
})  # fmt: skip
_LOOPS = frozenset({"while_statement", "for_statement", "do_statement", "for_in_statement"})
_WAITING = re.compile(r"\b(?:await|yield|question|accept|recv|prompt)\b")
_LEAVING = re.compile(r"\b(?:break|return|throw|process\.exit|yield|await)\b")


def _identifier(walk: ScriptWalk, node: tree_sitter.Node) -> Value:
    """A name: a variable, or a global by its own name."""
    name = text_of(node)
    return walk.names.get(name) or Value(origin=name)


def _string(_walk: ScriptWalk, node: tree_sitter.Node) -> Value:
    """A string literal."""
    return Value(consts=(unescape(text_of(node)[1:-1]),))


def _template(walk: ScriptWalk, node: tree_sitter.Node) -> Value:
    """A template: text and substitutions."""
    parts: list[Value] = []
    for child in node.named_children:
        if child.type == "template_substitution":
            parts.append(walk.value(child.named_children[0]) if child.named_children else UNKNOWN)
        else:
            parts.append(Value(consts=(unescape(text_of(child)),)))
    return concat(parts) if parts else Value(consts=("",))


def _number(_walk: ScriptWalk, node: tree_sitter.Node) -> Value:
    """A number literal."""
    text = text_of(node).replace("_", "").rstrip("n")[:300]
    try:
        return Value(consts=(int(text, 0),))
    except ValueError:
        pass
    try:
        return Value(consts=(float(text),))
    except ValueError:
        return UNKNOWN


def _member(walk: ScriptWalk, node: tree_sitter.Node) -> Value:
    """`a.b`."""
    base = walk.value(node.child_by_field_name("object"))
    prop = node.child_by_field_name("property")
    return walk.property_of(base, text_of(prop) if prop is not None else "", node)


def _subscript(walk: ScriptWalk, node: tree_sitter.Node) -> Value:
    """`a[b]`; a known text is a property, and one that gives power is spelt so for a reason."""
    base = walk.value(node.child_by_field_name("object"))
    key = walk.value(node.child_by_field_name("index"))
    for text in key.texts:
        found = walk.property_of(base, text, node)
        if text in ("eval", "Function", "constructor", "exec", "execSync", "spawn", "require", "child_process"):
            walk.at(node)
            walk.rec.code("attribute", Value(consts=("eval",), origin=base.origin))
        return found
    numbers = [n for n in key.numbers if isinstance(n, int)]
    if base.elements and numbers and 0 <= numbers[0] < len(base.elements) and not base.keys:
        return base.elements[numbers[0]]
    one = elements_of(base)
    return Value(consts=one.consts, taints=base.taints | key.taints, origin=one.origin)


def _binary(walk: ScriptWalk, node: tree_sitter.Node) -> Value:
    """`a + b` joins texts; anything else carries what its parts carry."""
    left, right = walk.value(node.child_by_field_name("left")), walk.value(node.child_by_field_name("right"))
    operator = node.child_by_field_name("operator")
    sign = text_of(operator) if operator is not None else ""
    if sign == "+" and (left.texts or right.texts):
        return concat([left, right])
    if sign in ("||", "??", "&&"):
        return join(left, right)
    if sign == "**" and len(left.numbers) == len(right.numbers) == 1 and 0 <= right.numbers[0] <= 64:
        return Value(consts=(left.numbers[0] ** int(right.numbers[0]),))
    if sign in ("*", "+", "-", "^") and len(left.numbers) == len(right.numbers) == 1:
        a, b = left.numbers[0], right.numbers[0]
        if sign != "^":
            return Value(consts=(a * b if sign == "*" else a + b if sign == "+" else a - b,))
        if isinstance(a, int) and isinstance(b, int):
            return Value(consts=(a ^ b,))
    return Value(taints=left.taints | right.taints) if left.taints or right.taints else UNKNOWN


def _array(walk: ScriptWalk, node: tree_sitter.Node) -> Value:
    """`[a, b]`."""
    members = tuple(walk.value(child) for child in node.named_children[:4096])
    return Value(elements=members, taints=taints_of(members))


def _mapping(walk: ScriptWalk, node: tree_sitter.Node) -> Value:
    """`{a: b}`."""
    keys: list[str] = []
    members: list[Value] = []
    for child in node.named_children:
        if child.type == "pair":
            key = child.child_by_field_name("key")
            keys.append(text_of(key).strip("\"'`") if key is not None else "")
            members.append(walk.value(child.child_by_field_name("value")))
        else:
            keys.append(text_of(child))
            members.append(walk.value(child))
    return Value(keys=tuple(keys), elements=tuple(members), taints=taints_of(members))


def _declare(walk: ScriptWalk, node: tree_sitter.Node) -> Value:
    """`const a = b`."""
    name, value = node.child_by_field_name("name"), walk.value(node.child_by_field_name("value"))
    if name is not None:
        walk.bind(name, value)
    return UNKNOWN


def _assign(walk: ScriptWalk, node: tree_sitter.Node) -> Value:
    """`a = b`, `a += b`."""
    left, value = node.child_by_field_name("left"), walk.value(node.child_by_field_name("right"))
    if left is not None:
        if node.type == "augmented_assignment_expression":
            value = concat([walk.value(left), value])
        walk.bind(left, value)
    return value


def _function(walk: ScriptWalk, node: tree_sitter.Node) -> Value:
    """A function: remembered, and walked when it is called."""
    walk.functions.append(node)
    value = Value(ref=node)
    name = node.child_by_field_name("name")
    if name is not None and node.type != "method_definition":
        walk.names[text_of(name)] = value
    return value


def _give_back(walk: ScriptWalk, node: tree_sitter.Node) -> Value:
    """`return`."""
    value = walk.children(node) if not node.named_children else walk.value(node.named_children[0])
    if walk.returned:
        walk.returned[-1].append(value)
    return UNKNOWN


def _loop(walk: ScriptWalk, node: tree_sitter.Node) -> Value:
    """A loop; one that nothing ends is a fact of its own."""
    condition = node.child_by_field_name("condition")
    body = node.child_by_field_name("body")
    if node.type == "for_in_statement":
        left = node.child_by_field_name("left")
        if left is not None:
            walk.bind(left, elements_of(walk.value(node.child_by_field_name("right"))))
    text = text_of(condition).strip("(); ") if condition is not None else ""
    endless = (node.type == "for_statement" and not text) or text in ("true", "1", "!0", "!false", "!![]")
    if endless and body is not None and not _LEAVING.search(text_of(body)):
        walk.at(node)
        inside = text_of(body)
        does = {"wait"} if _WAITING.search(inside) else set()
        does |= {"grow"} if re.search(r"\.push\(|\.unshift\(|\+=\s*[\"'`\w]|\.concat\(|\.set\(", inside) else set()
        does |= {"spawn"} if re.search(r"\b(?:fork|spawn|exec|Worker)\(", inside) else set()
        does |= {"write"} if re.search(r"(?:write|append)File|\.write\(", inside) else set()
        walk.rec.loop(does)
    walk.rec.loops += 1
    walk.children(node)
    walk.rec.loops -= 1
    return UNKNOWN


def _imported(walk: ScriptWalk, node: tree_sitter.Node) -> Value:
    """`import fs from 'node:fs'`."""
    source = node.child_by_field_name("source")
    module = unescape(text_of(source)[1:-1]).removeprefix("node:") if source is not None else ""
    walk.at(node)
    walk.note_import(module)
    for child in node.named_children:
        if child.type == "import_clause":
            _import_names(walk, child, module)
    return UNKNOWN


def _import_names(walk: ScriptWalk, clause: tree_sitter.Node, module: str) -> None:
    for child in clause.named_children:
        if child.type == "identifier":
            walk.names[text_of(child)] = Value(origin=module)
        elif child.type == "namespace_import" and child.named_children:
            walk.names[text_of(child.named_children[0])] = Value(origin=module)
        elif child.type == "named_imports":
            for part in child.named_children:
                name, alias = part.child_by_field_name("name"), part.child_by_field_name("alias")
                if name is not None:
                    shown = text_of(alias if alias is not None else name)
                    walk.names[shown] = Value(origin=f"{module}.{text_of(name)}")


def _call(walk: ScriptWalk, node: tree_sitter.Node) -> Value:
    """`f(x)`, `new F(x)`."""
    target = node.child_by_field_name("function") or node.child_by_field_name("constructor")
    receiver = UNKNOWN
    method = ""
    if target is not None and target.type == "member_expression":
        receiver = walk.value(target.child_by_field_name("object"))
        prop = target.child_by_field_name("property")
        method = text_of(prop) if prop is not None else ""
        function = walk.property_of(receiver, method, target)
    else:
        function = walk.value(target)
    holder = node.child_by_field_name("arguments")
    args = [walk.value(child) for child in holder.named_children] if holder is not None else []
    walk.at(node)
    return perform(walk, function, receiver, method, args)


def _first_child(walk: ScriptWalk, node: tree_sitter.Node) -> Value:
    return walk.value(node.named_children[0]) if node.named_children else UNKNOWN


def _class(walk: ScriptWalk, node: tree_sitter.Node) -> Value:
    """A class: `new` runs its constructor; one set of `this.x` stands for all instances."""
    walk.children(node)
    body, name = node.child_by_field_name("body"), node.child_by_field_name("name")
    for child in body.named_children if body is not None else []:
        own = child.child_by_field_name("name") if child.type == "method_definition" else None
        if own is not None and text_of(own) == "constructor" and name is not None:
            walk.names[text_of(name)] = Value(ref=child)
    return UNKNOWN


NODES: dict[str, Callable[[ScriptWalk, tree_sitter.Node], Value]] = {
    "identifier": _identifier,
    "string": _string,
    "template_string": _template,
    "number": _number,
    "member_expression": _member,
    "subscript_expression": _subscript,
    "binary_expression": _binary,
    "array": _array,
    "object": _mapping,
    "variable_declarator": _declare,
    "assignment_expression": _assign,
    "augmented_assignment_expression": _assign,
    "return_statement": _give_back,
    "import_statement": _imported,
    "call_expression": _call,
    "new_expression": _call,
    "parenthesized_expression": lambda walk, node: (
        walk.value(node.named_children[0]) if node.named_children else UNKNOWN
    ),
    "await_expression": lambda walk, node: walk.value(node.named_children[0]) if node.named_children else UNKNOWN,
    "true": lambda _walk, _node: Value(consts=(True,)),
    "false": lambda _walk, _node: Value(consts=(False,)),
    "this": lambda _walk, _node: Value(origin="this"),
    "import": lambda _walk, _node: Value(origin="import"),
    **dict.fromkeys(("class_declaration", "class"), _class),
    **dict.fromkeys(("as_expression", "satisfies_expression", "non_null_expression"), _first_child),
    "type_assertion": lambda walk, node: walk.value(node.named_children[-1]) if node.named_children else UNKNOWN,
    "comment": lambda _walk, _node: UNKNOWN,
    **dict.fromkeys(_FUNCTIONS, _function),
    **dict.fromkeys(_LOOPS, _loop),
}
