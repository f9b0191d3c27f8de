"""Programs inside programs: `python -c`, `sh -c`, `eval`, decoded payloads."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

from mayfly.scan.source import Program, Refusal

if TYPE_CHECKING:
    from mayfly.scan.facts import Fact, ScanLanguage
    from mayfly.scan.manifest import Manifest

__all__ = ["facts_of", "read_nested"]

_MAX_NESTING = 6
# Not part of the recorder, because each nested program has a recorder of its own.
_nesting: ContextVar[int] = ContextVar("nesting", default=0)


def facts_of(
    program: Program, manifest: Manifest | None = None, keep: list[object] | None = None
) -> list[Fact] | Refusal:
    """The facts of a program, by its language's front end. What takes time to free is put into `keep`."""
    if program.lang == "python":
        from mayfly.scan.python import python_facts

        return python_facts(program, manifest, keep)
    if program.lang == "bash":
        from mayfly.scan.bash import bash_facts

        return bash_facts(program)
    from mayfly.scan.javascript import javascript_facts

    return javascript_facts(program)


def read_nested(text: str, lang: ScanLanguage) -> list[Fact] | None:
    """The facts of a text read as a program, or None when it is none, or nested too deep."""
    depth = _nesting.get()
    if depth >= _MAX_NESTING or "\0" in text:
        return None
    token = _nesting.set(depth + 1)
    try:
        facts = facts_of(Program(lang, text.encode("utf-8", "replace"), text))
    finally:
        _nesting.reset(token)
    return None if isinstance(facts, Refusal) else facts
