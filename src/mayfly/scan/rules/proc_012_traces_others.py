"""MF-PROC-012."""

from __future__ import annotations

from mayfly.scan.facts import CommandUse
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]


def _check(fact: CommandUse, _scene: Scene) -> Hit | None:
    if fact.name in ("gdb", "strace", "ltrace", "gcore", "perf", "bpftrace", "lldb") and {
        "-p",
        "--pid",
        "--attach",
    } & set(fact.args):
        return Hit(f"attaches {fact.name} to another process")
    return Hit("dumps another process") if fact.name in ("gcore", "procdump") else None


RULE = Rule(
    id="MF-PROC-012",
    title="Attaches to other processes",
    rationale="A debugger sees and changes everything in another process.",
    severity="high",
    cwe="CWE-250",
    confidence="high",
    capabilities=("proc",),
    facts=(CommandUse,),
    check=_check,
    examples={
        "python": "import os\nos.system('gdb -p 1')",
        "bash": "strace -p 1",
    },
    near_misses={
        "python": "import os\nos.system('gdb --version')",
        "bash": "strace ls",
    },
    languages=("python", "bash"),
)
