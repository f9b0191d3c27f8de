"""MF-PROC-005."""

from __future__ import annotations

from mayfly.scan.facts import CallUse, CommandUse
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]

_CALLS = frozenset({"os.setuid", "os.seteuid", "os.setreuid", "os.setresuid", "os.setgid"})


def _check(fact: CommandUse | CallUse, _scene: Scene) -> Hit | None:
    if isinstance(fact, CommandUse):
        return Hit(f"asks for more rights with {fact.name}")
    root = any(0 in value.consts for value in fact.args)
    return Hit(f"becomes root with {fact.name}", severity="high") if root else None


RULE = Rule(
    id="MF-PROC-005",
    title="Asks for more rights",
    rationale="A program in a sandbox has the rights it needs.",
    severity="medium",
    cwe="CWE-250",
    confidence="high",
    capabilities=("proc",),
    facts=(CommandUse, CallUse),
    only={CommandUse: ("sudo", "su", "pkexec", "doas", "runuser"), CallUse: _CALLS},
    check=_check,
    examples={
        "python": "import os\nos.setuid(0)",
        "bash": "sudo id",
    },
    near_misses={
        "python": "import os\nprint(os.getuid())",
        "bash": "id",
    },
    languages=("python", "bash"),
)
