"""MF-PERS-008."""

from __future__ import annotations

from mayfly.scan.facts import CallUse, CommandUse
from mayfly.scan.judge import known_text
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]


def _check(fact: CommandUse | CallUse, _scene: Scene) -> Hit | None:
    if isinstance(fact, CallUse):
        value = known_text(fact.args[0]) if fact.args else ""
        return Hit("switches the shell's history off") if value in ("", "/dev/null", "0") else None
    if fact.name == "history" and {"-c", "-d", "-cw"} & set(fact.args):
        return Hit("clears the shell's history")
    if fact.name == "unset" and {"HISTFILE", "HISTSIZE"} & set(fact.args):
        return Hit("switches the shell's history off")
    cleared = (fact.name == "journalctl" and any("vacuum" in a or "rotate" in a for a in fact.args)) or (
        fact.name == "dmesg" and {"-C", "-c", "--clear"} & set(fact.args)
    )
    return Hit(f"clears logs with {fact.name}") if cleared else None


RULE = Rule(
    id="MF-PERS-008",
    title="Clears its traces",
    rationale="Histories switched off and logs emptied: whoever does that does not want to be followed.",
    severity="high",
    cwe="CWE-117",
    confidence="high",
    capabilities=("proc",),
    facts=(CommandUse, CallUse),
    only={CallUse: ("set-HISTFILE", "set-HISTSIZE"), CommandUse: ("history", "unset", "journalctl", "dmesg")},
    check=_check,
    examples={
        "python": "import os\nos.system('history -c')",
        "bash": "unset HISTFILE",
    },
    near_misses={
        "python": "import os\nos.system('dmesg')",
        "bash": "history",
    },
    languages=("python", "bash"),
)
