"""MF-REC-005."""

from __future__ import annotations

from mayfly.scan.facts import CallUse, CommandUse
from mayfly.scan.judge import verbs
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]


def _check(fact: CallUse | CommandUse, _scene: Scene) -> Hit | None:
    if isinstance(fact, CallUse):
        return Hit(f"lists accounts with {fact.name}")
    if fact.name == "getent" and verbs(fact) & {"passwd", "shadow", "group"}:
        return Hit("lists accounts with getent")
    return (
        Hit("looks for set-user-id programs")
        if fact.name == "find-perm" and any("4000" in a or "u=s" in a or "6000" in a for a in fact.args)
        else None
    )


RULE = Rule(
    id="MF-REC-005",
    title="Lists the accounts of the machine",
    rationale="Names of users and groups prepare an attack on them.",
    severity="medium",
    cwe="CWE-200",
    confidence="high",
    capabilities=("fs-read",),
    facts=(CallUse, CommandUse),
    only={CallUse: ("pwd.getpwall", "grp.getgrall", "spwd.getspall"), CommandUse: ("getent", "find-perm")},
    check=_check,
    examples={
        "python": "import pwd\npwd.getpwall()",
        "bash": "getent passwd",
    },
    near_misses={
        "python": "import pwd, os\npwd.getpwuid(os.getuid())",
        "bash": "getent hosts example.com",
    },
    languages=("python", "bash"),
)
