"""MF-FILE-002."""

from __future__ import annotations

from mayfly.scan.facts import FileUse
from mayfly.scan.judge import path_of_kind, shown
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]

_OPS = frozenset(["encrypt", "link", "list", "read"])
_KINDS = frozenset(["accounts"])


def _check(fact: FileUse, scene: Scene) -> Hit | None:
    if (path := path_of_kind(fact, scene, _KINDS)) is None:
        return None

    return Hit(f"reads account data: {shown(path)}")


RULE = Rule(
    id="MF-FILE-002",
    title="Reads who may log in",
    rationale=("Account files name the users of a machine and their rights; reading them prepares something else."),
    severity="medium",
    cwe="CWE-200",
    confidence="high",
    capabilities=("fs-read",),
    facts=(FileUse,),
    only={FileUse: _OPS},
    check=_check,
    examples={
        "python": "open('/etc/passwd').read()",
        "bash": "cat /etc/passwd",
        "javascript": "require('fs').readFileSync('/etc/passwd')",
    },
    near_misses={
        "python": "open('passwd.txt').read()",
        "bash": "cat passwd.txt",
        "javascript": "require('fs').readFileSync('passwd')",
    },
    languages=("python", "bash", "javascript"),
)
