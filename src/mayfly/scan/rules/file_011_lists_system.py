"""MF-FILE-011."""

from __future__ import annotations

from mayfly.scan.facts import FileUse
from mayfly.scan.judge import path_of_kind, shown
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]

_OPS = frozenset(["list"])
_KINDS = frozenset(["system", "root", "startup"])


def _check(fact: FileUse, scene: Scene) -> Hit | None:
    if (path := path_of_kind(fact, scene, _KINDS)) is None:
        return None

    return Hit(f"lists {shown(path)}")


RULE = Rule(
    id="MF-FILE-011",
    title="Lists system directories",
    rationale=("Looking around in the system is the first step of most intrusions, and no step of most computations."),
    severity="medium",
    cwe="CWE-548",
    confidence="high",
    capabilities=("fs-write",),
    facts=(FileUse,),
    only={FileUse: _OPS},
    check=_check,
    examples={
        "python": "import os\nos.listdir('/etc')",
        "bash": "ls -a /etc",
    },
    near_misses={
        "python": "import os\nos.listdir('data')",
        "bash": "ls -a data",
    },
    languages=("python", "bash"),
)
