"""MF-RES-005."""

from __future__ import annotations

from mayfly.scan.facts import LoopUse
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]


def _check(fact: LoopUse, _scene: Scene) -> Hit | None:
    return Hit("the function always calls itself") if fact.kind == "recursion" else None


RULE = Rule(
    id="MF-RES-005",
    title="Recursion without a floor",
    rationale="The function calls itself before anything could stop it.",
    severity="medium",
    cwe="CWE-674",
    confidence="high",
    capabilities=("cpu",),
    facts=(LoopUse,),
    check=_check,
    examples={
        "python": "def f(n):\n    return f(n + 1)\nf(0)",
    },
    near_misses={
        "python": "def f(n):\n    return 1 if n < 2 else n * f(n - 1)\nf(9)",
    },
    languages=("python",),
)
