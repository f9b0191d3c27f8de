"""MF-FILE-010."""

from __future__ import annotations

from mayfly.scan.facts import FileUse
from mayfly.scan.judge import path_of_kind, shown
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]

_OPS = frozenset(["chmod", "chown", "encrypt", "link", "list", "read", "write"])
_KINDS = frozenset(["home"])


def _check(fact: FileUse, scene: Scene) -> Hit | None:
    if (path := path_of_kind(fact, scene, _KINDS)) is None:
        return None

    return Hit(f"looks into a home directory: {shown(path)}")


RULE = Rule(
    id="MF-FILE-010",
    title="Looks into people's home directories",
    rationale="A program in a sandbox has a home of its own; others are none of its business.",
    severity="medium",
    cwe="CWE-200",
    confidence="high",
    capabilities=("fs-read",),
    facts=(FileUse,),
    only={FileUse: _OPS},
    check=_check,
    examples={
        "python": "import os\nos.listdir('/home')",
        "bash": "ls /root",
    },
    near_misses={
        "python": "import os\nos.listdir('.')",
        "bash": "ls data",
    },
    languages=("python", "bash"),
)
