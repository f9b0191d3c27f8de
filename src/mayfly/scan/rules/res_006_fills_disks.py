"""MF-RES-006."""

from __future__ import annotations

from mayfly.scan.facts import CallUse, LoopUse
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]


def _check(fact: LoopUse | CallUse, _scene: Scene) -> Hit | None:
    if isinstance(fact, LoopUse):
        return Hit("writes in a loop that nothing ends") if "write" in fact.does else None
    return Hit("makes a file of a gibibyte or more")


RULE = Rule(
    id="MF-RES-006",
    title="Fills the disk",
    rationale="Writes without end, or gibibytes at once.",
    severity="high",
    cwe="CWE-400",
    confidence="high",
    capabilities=("fs-write",),
    facts=(LoopUse, CallUse),
    only={CallUse: ("fill-disk",)},
    check=_check,
    examples={
        "python": "f = open('x', 'w')\nwhile True:\n    f.write('a' * 999)",
        "bash": "dd if=/dev/zero of=big bs=1M",
    },
    near_misses={
        "python": "f = open('x', 'w')\nfor i in range(9):\n    f.write('a')",
        "bash": "dd if=/dev/zero of=small bs=1M count=1",
    },
    languages=("python", "bash"),
)
