"""MF-SRC-001."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mayfly.scan.rule import Rule

if TYPE_CHECKING:
    from mayfly.scan.facts import Fact
    from mayfly.scan.rule import Hit, Scene

__all__ = ["RULE"]


def _check(_fact: Fact, _scene: Scene) -> Hit | None:
    """The engine raises this one itself, before there are facts."""
    return None


RULE = Rule(
    id="MF-SRC-001",
    title="The program cannot be looked at",
    rationale=(
        "Over-size, a NUL byte, another encoding than UTF-8, a syntax error, or nesting that no parser takes: what "
        "cannot be parsed cannot be judged, and is refused under every policy."
    ),
    severity="high",
    cwe="CWE-172",
    facts=(),
    check=_check,
    examples={"python": "print(", "bash": "echo a\0b", "javascript": "let a\0 = 1"},
    near_misses={"python": "print()", "bash": "echo ab", "javascript": "let a = 1"},
)
