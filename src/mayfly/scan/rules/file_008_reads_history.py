"""MF-FILE-008."""

from __future__ import annotations

from mayfly.scan.facts import FileUse
from mayfly.scan.judge import path_of_kind, shown
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]

_OPS = frozenset(["encrypt", "link", "list", "read", "rename"])
_KINDS = frozenset(["history"])


def _check(fact: FileUse, scene: Scene) -> Hit | None:
    if (path := path_of_kind(fact, scene, _KINDS)) is None:
        return None

    return Hit(f"reads a history: {shown(path)}")


RULE = Rule(
    id="MF-FILE-008",
    title="Reads what a person typed",
    rationale="Histories of shells and editors hold passwords and host names.",
    severity="high",
    cwe="CWE-200",
    confidence="high",
    capabilities=("fs-read",),
    facts=(FileUse,),
    only={FileUse: _OPS},
    check=_check,
    examples={
        "python": "import os\nopen(os.path.expanduser('~/.bash_history')).read()",
        "bash": "cat ~/.bash_history",
    },
    near_misses={
        "python": "open('history.txt').read()",
        "bash": "cat history.txt",
    },
    languages=("python", "bash"),
)
