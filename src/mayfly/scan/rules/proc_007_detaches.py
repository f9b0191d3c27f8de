"""MF-PROC-007."""

from __future__ import annotations

from mayfly.scan.facts import CallUse, CommandUse
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]


def _check(fact: CommandUse | CallUse, _scene: Scene) -> Hit | None:
    if isinstance(fact, CommandUse):
        return Hit(f"leaves a process behind with {fact.name}")
    return Hit("detaches itself")


RULE = Rule(
    id="MF-PROC-007",
    title="Leaves something running behind",
    rationale="A process that detaches itself outlives what started it.",
    severity="low",
    cwe="CWE-506",
    confidence="high",
    capabilities=("proc",),
    facts=(CommandUse, CallUse),
    only={
        CommandUse: ("nohup", "setsid", "disown", "screen", "tmux"),
        CallUse: ("os.setsid", "daemon.DaemonContext"),
    },
    check=_check,
    examples={
        "python": "import os\nos.setsid()",
        "bash": "nohup ./server &",
    },
    near_misses={
        "python": "import os\nos.getpid()",
        "bash": "./server",
    },
    languages=("python", "bash"),
)
