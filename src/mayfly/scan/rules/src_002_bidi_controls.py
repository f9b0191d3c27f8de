"""MF-SRC-002."""

from __future__ import annotations

from mayfly.scan.facts import Oddity
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]


def _check(fact: Oddity, _scene: Scene) -> Hit | None:
    if fact.kind != "bidi":
        return None
    return Hit(f"bidirectional control {fact.text}: the line does not read as it runs")


RULE = Rule(
    id="MF-SRC-002",
    title="Bidirectional control characters",
    rationale="They make a line show in another order than it runs.",
    severity="medium",
    cwe="CWE-1007",
    facts=(Oddity,),
    check=_check,
    examples={"python": "x = 1 # \u202e } if admin", "bash": "echo \u202e hi", "javascript": "let a = 1 // \u2066"},
    near_misses={"python": "x = 'שלום'", "bash": "echo שלום", "javascript": "let a = 'שלום'"},
)
