"""MF-FILE-009."""

from __future__ import annotations

from mayfly.scan.facts import FileUse
from mayfly.scan.judge import path_of_kind, shown
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]

_OPS = frozenset(["encrypt", "link", "list", "read"])
_KINDS = frozenset(["log"])


def _check(fact: FileUse, scene: Scene) -> Hit | None:
    if (path := path_of_kind(fact, scene, _KINDS)) is None:
        return None

    return Hit(f"reads logs: {shown(path)}")


RULE = Rule(
    id="MF-FILE-009",
    title="Reads the logs of the system",
    rationale="Logs tell who does what on a machine.",
    severity="medium",
    cwe="CWE-532",
    confidence="high",
    capabilities=("fs-read",),
    facts=(FileUse,),
    only={FileUse: _OPS},
    check=_check,
    examples={
        "python": "open('/var/log/auth.log').read()",
        "bash": "tail /var/log/syslog",
    },
    near_misses={
        "python": "open('app.log').read()",
        "bash": "tail app.log",
    },
    languages=("python", "bash"),
)
