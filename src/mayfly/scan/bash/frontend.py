"""Parses a script with tree-sitter and starts the walk."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from mayfly.scan.bash.walk import BashWalk
from mayfly.scan.facts import Oddity
from mayfly.scan.recorder import Recorder

if TYPE_CHECKING:
    import tree_sitter

    from mayfly.scan.facts import Fact
    from mayfly.scan.source import Program

__all__ = ["bash_facts"]

_FORK_BOMB = re.compile(r"(?<![\w:.@%+-])([\w:.@%+-]{1,64})\s{0,8}\(\)\s*\{\s*\1\s*\|\s*\1\s*&\s*\}?\s*;?")

_BRACE_WORDS = re.compile(rb"(^|[;&|(\n]\s*)(\{[^\s{},]+(?:,[^\s{},]*)+\})")
_BRACES = bytes.maketrans(b"{,}", b"   ")


@lru_cache(maxsize=1)
def _parser() -> tree_sitter.Parser:
    import tree_sitter
    import tree_sitter_bash

    return tree_sitter.Parser(tree_sitter.Language(tree_sitter_bash.language()))


def _spread(match: re.Match[bytes]) -> bytes:
    """`{rm,-rf,x}` as a command is `rm -rf x`; of the same length, so that places stay right."""
    return match[1] + match[2].translate(_BRACES)


def bash_facts(program: Program) -> list[Fact]:
    """The facts of a script. What the grammar does not take becomes an `Oddity`, and the rest is still judged."""
    tree = _parser().parse(_BRACE_WORDS.sub(_spread, program.data))
    rec = Recorder()
    if match := _FORK_BOMB.search(program.text):
        rec.line = program.text.count("\n", 0, match.start()) + 1
        rec.column = 1
        rec.loop({"spawn"}, kind="fork-bomb")
    walk = BashWalk(rec)
    walk.program(tree.root_node)
    if tree.root_node.has_error:
        line, lost = _errors(tree.root_node)
        # Grammars have gaps, and what stands in one is walked as far as it goes: a small gap is only noted.
        kind = "unparsed-little" if lost * 10 <= len(program.data) else "unparsed"
        rec.facts.append(Oddity(kind=kind, text="part of the script", line=line))
    return rec.facts


def _errors(root: tree_sitter.Node) -> tuple[int, int]:
    """The line of the first error, and how many bytes the errors hold."""
    stack = [root]
    line = lost = 0
    while stack:
        node = stack.pop()
        if node.is_error or node.is_missing:
            line = line or node.start_point[0] + 1
            lost += node.end_byte - node.start_byte
        else:
            stack.extend(child for child in reversed(node.children) if child.has_error or child.is_missing)
    return line, lost
