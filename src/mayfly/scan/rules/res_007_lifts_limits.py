"""MF-RES-007."""

from __future__ import annotations

from mayfly.scan.facts import CallUse, CommandUse
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]


def _check(fact: CallUse | CommandUse, _scene: Scene) -> Hit | None:
    if isinstance(fact, CommandUse):
        return Hit("lifts limits with ulimit") if "unlimited" in fact.args else None
    if fact.name == "resource.setrlimit":
        return Hit("changes its limits")
    deep = any(n >= 10**6 for v in fact.args for n in v.numbers)
    return Hit("allows recursion of a million calls or more") if deep else None


RULE = Rule(
    id="MF-RES-007",
    title="Lifts limits",
    rationale="Recursion, process and memory limits are there for the machine that it runs on.",
    severity="low",
    cwe="CWE-770",
    confidence="high",
    capabilities=("memory",),
    facts=(CallUse, CommandUse),
    only={CallUse: ("resource.setrlimit", "sys.setrecursionlimit"), CommandUse: ("ulimit",)},
    check=_check,
    examples={
        "python": "import sys\nsys.setrecursionlimit(10**9)",
        "bash": "ulimit -u unlimited",
    },
    near_misses={
        "python": "import sys\nsys.setrecursionlimit(5000)",
        "bash": "ulimit -a",
    },
    languages=("python", "bash"),
)
