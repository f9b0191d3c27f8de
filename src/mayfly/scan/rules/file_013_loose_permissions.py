"""MF-FILE-013."""

from __future__ import annotations

from mayfly.scan.facts import FileUse
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]


def _check(fact: FileUse, _scene: Scene) -> Hit | None:
    if fact.mode is None:
        return None
    if fact.mode & 0o6000:
        return Hit("makes a file set-user-id or set-group-id")
    if not fact.mode & 0o002:
        return None
    return Hit("makes a file writable by everybody", severity="medium" if fact.mode & 0o777 == 0o777 else "low")


RULE = Rule(
    id="MF-FILE-013",
    title="Gives away permissions",
    rationale=(
        "A set-user-id program runs with the rights of its owner; a world-writable file is anybody's to change."
    ),
    severity="high",
    cwe="CWE-732",
    confidence="high",
    capabilities=("fs-write",),
    facts=(FileUse,),
    only={FileUse: ("chmod",)},
    check=_check,
    examples={
        "python": "import os\nos.chmod('tool', 0o4755)",
        "bash": "chmod u+s tool",
    },
    near_misses={
        "python": "import os\nos.chmod('tool', 0o755)",
        "bash": "chmod +x tool",
    },
    languages=("python", "bash"),
)
