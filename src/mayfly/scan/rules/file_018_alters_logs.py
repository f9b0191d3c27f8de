"""MF-FILE-018."""

from __future__ import annotations

from mayfly.scan.facts import FileUse
from mayfly.scan.judge import path_of_kind, shown
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]

_OPS = frozenset({"write", "delete", "delete-tree", "rename", "chmod", "chown"})


def _check(fact: FileUse, scene: Scene) -> Hit | None:
    if (path := path_of_kind(fact, scene, ("log", "history"))) is None:
        return None
    return Hit(f"alters or removes {shown(path)}")


RULE = Rule(
    id="MF-FILE-018",
    title="Alters or removes logs",
    rationale="Whoever removes the traces has a reason.",
    severity="high",
    cwe="CWE-117",
    confidence="high",
    capabilities=("fs-write",),
    facts=(FileUse,),
    only={FileUse: _OPS},
    check=_check,
    examples={
        "python": "import os\nos.remove('/var/log/auth.log')",
        "bash": "> /var/log/wtmp",
    },
    near_misses={
        "python": "import os\nos.remove('app.log')",
        "bash": "> app.log",
    },
    languages=("python", "bash"),
)
