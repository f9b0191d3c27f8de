"""What a word of a script may be: quoting, expansions, substitutions."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from mayfly.scan.facts import UNKNOWN, Value
from mayfly.scan.values import concat, unknown

if TYPE_CHECKING:
    from collections.abc import Callable

    import tree_sitter

    from mayfly.scan.bash.walk import BashWalk

__all__ = ["text_of", "word"]

_ANSI = re.compile(r"\\(?:x([0-9a-fA-F]{1,2})|u([0-9a-fA-F]{1,4})|([0-7]{1,3})|(.))", re.DOTALL)
_SIMPLE = {"n": "\n", "t": "\t", "r": "\r", "e": "\x1b", "a": "\a", "b": "\b"}


def text_of(node: tree_sitter.Node) -> str:
    """The node's source text."""
    return (node.text or b"").decode("utf-8", "replace")


def word(walk: BashWalk, node: tree_sitter.Node) -> Value:
    """The value of a word node."""
    handler = _WORDS.get(node.type)
    if handler is not None:
        return handler(walk, node)
    children = node.named_children
    return concat([word(walk, child) for child in children]) if children else Value(consts=(text_of(node),))


def _plain(_walk: BashWalk, node: tree_sitter.Node) -> Value:
    return Value(consts=(re.sub(r"\\(.)", r"\1", text_of(node), flags=re.DOTALL),))


def _raw(_walk: BashWalk, node: tree_sitter.Node) -> Value:
    return Value(consts=(text_of(node)[1:-1],))


def _ansi(_walk: BashWalk, node: tree_sitter.Node) -> Value:
    def one(match: re.Match[str]) -> str:
        if match[1] or match[2]:
            return chr(int(match[1] or match[2], 16))
        if match[3]:
            return chr(int(match[3], 8) & 255)
        return _SIMPLE.get(match[4], match[4])

    return Value(consts=(_ANSI.sub(one, text_of(node)[2:-1]),))


def _string(walk: BashWalk, node: tree_sitter.Node) -> Value:
    """A double-quoted string: its text lies between its named children too."""
    data = node.text or b""
    parts: list[Value] = []
    position = 1
    for child in node.named_children:
        start, end = child.start_byte - node.start_byte, child.end_byte - node.start_byte
        if start > position:
            parts.append(_quoted(data[position:start]))
        parts.append(_quoted(data[start:end]) if child.type == "string_content" else word(walk, child))
        position = end
    if position < len(data) - 1:
        parts.append(_quoted(data[position:-1]))
    return concat(parts) if parts else Value(consts=("",))


def _quoted(data: bytes) -> Value:
    return Value(consts=(re.sub(r'\\([$`"\\\n])', r"\1", data.decode("utf-8", "replace")),))


def _concatenation(walk: BashWalk, node: tree_sitter.Node) -> Value:
    return concat([word(walk, child) for child in node.children])


def _simple_expansion(walk: BashWalk, node: tree_sitter.Node) -> Value:
    return walk.variable(text_of(node)[1:])


def _expansion(walk: BashWalk, node: tree_sitter.Node) -> Value:
    """`${name}` and the forms with an operator that can be worked out."""
    inner = text_of(node)[2:-1]
    match = re.match(r"^[!#]?(\w+|[@*#?$!-])(?:\[[^]]*\])?", inner)
    if match is None:
        return UNKNOWN
    value = walk.variable(match[1])
    rest = inner[match.end() :]
    if not rest:
        return unknown(*value.taints) if inner[0] in "!#" and len(inner) > 1 else value
    if default := re.match(r"^:?[-=](.*)$", rest, re.DOTALL):
        return value if value.texts else Value(consts=(default[1].strip("\"'"),), taints=value.taints)
    if re.match(r"^:?\?", rest):
        return value
    cut = re.match(r"^:(\d+)(?::(\d+))?$", rest)
    swap = re.match(r"^//?([^/]+)/([^/]*)$", rest)
    change: Callable[[str], str] | None = None
    if cut:
        start, stop = int(cut[1]), int(cut[1]) + int(cut[2]) if cut[2] else None
        change = lambda text: text[start:stop]  # noqa: E731
    elif swap:
        change = lambda text: text.replace(swap[1], swap[2])  # noqa: E731
    elif rest in (",,", "^^"):
        change = str.lower if rest == ",," else str.upper
    if change is None:
        return unknown(*value.taints)
    return Value(consts=tuple(change(text) for text in value.texts), taints=value.taints)


def _substitution(walk: BashWalk, node: tree_sitter.Node) -> Value:
    out = walk.output_of(node.named_children)
    stripped = tuple(c.rstrip("\n") if isinstance(c, str) else c for c in out.consts)
    return Value(consts=stripped, prefix=out.prefix, taints=out.taints)


def _process_substitution(walk: BashWalk, node: tree_sitter.Node) -> Value:
    return unknown(*walk.output_of(node.named_children).taints, "process-substitution")


def _array(walk: BashWalk, node: tree_sitter.Node) -> Value:
    members = tuple(word(walk, child) for child in node.named_children)
    joined = concat([p for m in members for p in (m, Value(consts=(" ",)))][:-1]) if members else UNKNOWN
    return Value(consts=joined.consts, prefix=joined.prefix, taints=joined.taints, elements=members)


_WORDS: dict[str, Callable[[BashWalk, tree_sitter.Node], Value]] = {
    "word": _plain,
    "number": _plain,
    "variable_name": _plain,
    "special_variable_name": _plain,
    "raw_string": _raw,
    "ansi_c_string": _ansi,
    "string": _string,
    "concatenation": _concatenation,
    "simple_expansion": _simple_expansion,
    "expansion": _expansion,
    "command_substitution": _substitution,
    "process_substitution": _process_substitution,
    "array": _array,
    "arithmetic_expansion": lambda _walk, _node: UNKNOWN,
}
