"""Parses with tree-sitter and starts the walk."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from mayfly.scan.facts import Oddity
from mayfly.scan.javascript.walk import ScriptWalk
from mayfly.scan.recorder import Recorder

if TYPE_CHECKING:
    import tree_sitter

    from mayfly.scan.facts import Fact
    from mayfly.scan.source import Program, Refusal

__all__ = ["javascript_facts"]

_TYPESCRIPT_SIGNS = (
    b"interface ",
    b": string",
    b": number",
    b": any",
    b"import type",
    b"as const",
    b" as ",
    b": boolean",
)


@lru_cache(maxsize=3)
def _parser(grammar: Literal["javascript", "typescript", "tsx"]) -> tree_sitter.Parser:
    import tree_sitter

    if grammar != "javascript":
        import tree_sitter_typescript as typescript

        language = typescript.language_tsx() if grammar == "tsx" else typescript.language_typescript()
        return tree_sitter.Parser(tree_sitter.Language(language))
    import tree_sitter_javascript

    return tree_sitter.Parser(tree_sitter.Language(tree_sitter_javascript.language()))


def javascript_facts(program: Program) -> list[Fact] | Refusal:
    """The facts of a program; what the grammar does not take is an oddity, and nothing but errors is a refusal."""
    from mayfly.scan.source import Refusal

    typescript = program.lang == "typescript"
    tree = _parser("typescript" if typescript else "javascript").parse(program.data)
    if tree.root_node.has_error:
        others: list[Literal["typescript", "tsx"]] = []
        if not typescript and any(sign in program.data for sign in _TYPESCRIPT_SIGNS):
            others.append("typescript")
        if b"/>" in program.data or b"</" in program.data:
            others.append("tsx")
        better = (_parser(grammar).parse(program.data) for grammar in others)
        tree = next((other for other in better if not other.root_node.has_error), tree)
    root = tree.root_node
    if root.type == "ERROR" or (root.named_child_count and all(child.is_error for child in root.named_children)):
        return Refusal("syntax", "the program cannot be parsed", root.start_point[0] + 1, root.start_point[1] + 1)
    rec = Recorder()
    ScriptWalk(rec).program(root)
    if root.has_error:
        rec.facts.append(Oddity(kind="unparsed", text="part of the program", line=1))
    return rec.facts
