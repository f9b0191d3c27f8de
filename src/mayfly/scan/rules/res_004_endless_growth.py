"""MF-RES-004."""

from __future__ import annotations

from mayfly.scan.facts import LoopUse
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]


def _check(fact: LoopUse, _scene: Scene) -> Hit | None:
    if fact.kind not in ("loop", "long") or "grow" not in fact.does:
        return None
    return Hit("adds to memory in a loop that nothing ends", severity="medium" if fact.kind == "long" else None)


RULE = Rule(
    id="MF-RES-004",
    title="Grows without end",
    rationale="A loop that nothing ends adds to something in memory.",
    severity="high",
    cwe="CWE-401",
    confidence="high",
    capabilities=("memory",),
    facts=(LoopUse,),
    check=_check,
    examples={
        "python": "x = []\nwhile True:\n    x.append('a' * 1000)",
        "bash": "while true; do x+=aaaa; done",
        "javascript": "const x = []; while (true) { x.push('a') }",
    },
    near_misses={
        "python": "x = []\nwhile len(x) < 9:\n    x.append(1)",
        "bash": "for i in 1 2; do x+=a; done",
        "javascript": "const x = []; while (x.length < 9) { x.push('a') }",
    },
    languages=("python", "bash", "javascript"),
)
