"""MF-RES-001."""

from __future__ import annotations

from mayfly.scan.facts import LoopUse
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]


def _check(fact: LoopUse, _scene: Scene) -> Hit | None:
    if fact.kind == "long":
        return Hit("a loop of a hundred million turns or more")
    if fact.kind != "loop" or fact.does & {"spawn", "grow"}:
        return None
    return Hit("a loop that nothing ends", severity="low" if "wait" in fact.does else None)


RULE = Rule(
    id="MF-RES-001",
    title="A loop without an end",
    rationale="Nothing in the loop can leave it: the program runs until it is stopped.",
    severity="medium",
    cwe="CWE-835",
    confidence="high",
    capabilities=("cpu",),
    facts=(LoopUse,),
    check=_check,
    examples={
        "python": "while True:\n    pass",
        "bash": "while true; do echo x; done",
        "javascript": "while (true) { }",
    },
    near_misses={
        "python": "while True:\n    if input() == 'q':\n        break",
        "bash": "while true; do break; done",
        "javascript": "while (true) { break }",
    },
    languages=("python", "bash", "javascript"),
)
