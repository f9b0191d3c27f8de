"""MF-RES-002."""

from __future__ import annotations

from mayfly.scan.facts import CallUse, LoopUse
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]


def _check(fact: LoopUse | CallUse, _scene: Scene) -> Hit | None:
    if isinstance(fact, CallUse):
        return Hit("forks in a loop", severity="high") if fact.in_loop else None
    if fact.kind == "fork-bomb":
        return Hit("a fork bomb")
    return (
        Hit("starts processes or threads in a loop that nothing ends")
        if fact.kind == "loop" and "spawn" in fact.does
        else None
    )


RULE = Rule(
    id="MF-RES-002",
    title="Starts processes without end",
    rationale="Each process starts more: a machine without limits stops answering.",
    severity="critical",
    cwe="CWE-400",
    confidence="high",
    capabilities=("pids",),
    facts=(LoopUse, CallUse),
    only={CallUse: ("fork",)},
    check=_check,
    examples={
        "python": "import os\nwhile True:\n    os.fork()",
        "bash": ":(){ :|:& };:",
    },
    near_misses={
        "python": "import os\npid = os.fork()",
        "bash": "f() { echo x; }; f",
    },
    languages=("python", "bash"),
)
