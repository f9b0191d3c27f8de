"""MF-FILE-004."""

from __future__ import annotations

from mayfly.scan.facts import FileUse
from mayfly.scan.judge import path_of_kind, shown
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]

_OPS = frozenset(["delete", "rename"])
_KINDS = frozenset(
    ["system", "accounts", "kernel", "credentials", "startup", "resolver", "device", "home", "root", "public"]
)


def _check(fact: FileUse, scene: Scene) -> Hit | None:
    if (path := path_of_kind(fact, scene, _KINDS)) is None:
        return None
    if "own-child" in fact.path.taints:
        return None
    return Hit(f"removes a system path: {shown(path)}")


RULE = Rule(
    id="MF-FILE-004",
    title="Deletes or moves a part of the system",
    rationale="What it deletes is not its own, and the machine may not work without it.",
    severity="high",
    cwe="CWE-732",
    confidence="high",
    capabilities=("fs-write",),
    facts=(FileUse,),
    only={FileUse: _OPS},
    check=_check,
    examples={
        "python": "import os\nos.remove('/etc/hosts')",
        "bash": "rm -f /etc/passwd",
        "javascript": "require('fs').unlinkSync('/etc/group')",
    },
    near_misses={
        "python": "import os\nos.remove('result.tmp')",
        "bash": "rm -f result.tmp",
        "javascript": "require('fs').unlinkSync('result.tmp')",
    },
    languages=("python", "bash", "javascript"),
)
