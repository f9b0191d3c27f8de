"""MF-PROC-013."""

from __future__ import annotations

from mayfly.scan.facts import CallUse, CommandUse
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]


def _check(fact: CallUse | CommandUse, _scene: Scene) -> Hit | None:
    if isinstance(fact, CommandUse):
        return Hit("opens a terminal with script") if {"-c", "-qc"} & set(fact.args) else None
    return Hit(f"opens a terminal with {fact.name}")


RULE = Rule(
    id="MF-PROC-013",
    title="Opens a terminal for a shell",
    rationale="A shell on a terminal of its own is for somebody who types: the second step of an intrusion.",
    severity="medium",
    cwe="CWE-506",
    confidence="high",
    capabilities=("proc",),
    facts=(CallUse, CommandUse),
    only={CallUse: ("pty.spawn", "pty.fork", "pty.openpty"), CommandUse: ("script",)},
    check=_check,
    examples={
        "python": "import pty\npty.spawn('/bin/bash')",
        "bash": "script -qc /bin/bash /dev/null",
    },
    near_misses={
        "python": "import tty",
    },
    languages=("python", "bash"),
)
