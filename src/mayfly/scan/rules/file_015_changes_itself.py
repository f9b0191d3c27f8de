"""MF-FILE-015."""

from __future__ import annotations

from mayfly.scan.facts import FileUse
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]


def _check(fact: FileUse, _scene: Scene) -> Hit | None:
    if fact.op == "write" and "self" in fact.content.taints and "walk" in fact.path.taints:
        return Hit("copies its own source into other files", severity="high")
    if "self" not in fact.path.taints:
        return None
    return Hit("changes or removes its own source")


RULE = Rule(
    id="MF-FILE-015",
    title="Deletes or rewrites its own source",
    rationale=("A program that removes itself hides what ran; one that rewrites itself is not what was looked at."),
    severity="medium",
    cwe="CWE-506",
    confidence="high",
    capabilities=("fs-write",),
    facts=(FileUse,),
    only={FileUse: ("write", "delete", "rename", "chmod")},
    check=_check,
    examples={
        "python": "import os\nos.remove(__file__)",
    },
    near_misses={
        "python": "import os\nprint(os.path.dirname(__file__))",
    },
    languages=("python",),
)
