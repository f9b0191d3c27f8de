"""MF-REC-007."""

from __future__ import annotations

import re

from mayfly.scan.facts import CallUse, CommandUse
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]

_CALLS = frozenset({"psutil.process_iter", "psutil.pids", "psutil.test"})
_EVERY = re.compile(r"^(?:-[a-zA-Z]*[eA][a-zA-Z]*|-?[xuwfl]*a[xuwfl]*|-?[auwfl]*x[auwfl]*)$")


def _check(fact: CallUse | CommandUse, _scene: Scene) -> Hit | None:
    if isinstance(fact, CallUse):
        return Hit(f"lists every process with {fact.name}")
    every = fact.name == "tasklist" or any(_EVERY.match(arg) for arg in fact.args)
    return Hit(f"lists every process with {fact.name}") if every else None


RULE = Rule(
    id="MF-REC-007",
    title="Lists every process",
    rationale="Who runs what, with which arguments: what one looks at to find something to attack, or to hide from.",
    severity="low",
    cwe="CWE-200",
    confidence="medium",
    capabilities=("proc",),
    facts=(CallUse, CommandUse),
    only={CallUse: _CALLS, CommandUse: ("tasklist", "ps")},
    check=_check,
    examples={
        "python": "import psutil\nfor p in psutil.process_iter(['name']):\n    print(p.info)",
        "bash": "ps aux",
    },
    near_misses={
        "python": "import psutil\nprint(psutil.Process().memory_info())",
        "bash": "ps -p $$ -o comm=",
    },
    languages=("python", "bash"),
)
