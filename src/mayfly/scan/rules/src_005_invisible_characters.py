"""MF-SRC-005."""

from __future__ import annotations

from mayfly.scan.facts import Oddity
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]


def _check(fact: Oddity, _scene: Scene) -> Hit | None:
    if fact.kind != "invisible":
        return None
    return Hit(f"invisible character {fact.text}")


RULE = Rule(
    id="MF-SRC-005",
    title="Invisible characters",
    rationale="Zero-width characters and tags carry hidden text or make two names look the same.",
    severity="low",
    cwe="CWE-1007",
    facts=(Oddity,),
    check=_check,
    examples={"python": "x = 'a\u200bb'", "bash": "echo a\u2060b", "javascript": "let a = '\u200b'"},
    near_misses={"python": "x = '👩‍💻'", "bash": "echo é", "javascript": "let a = 'é'"},
)
