"""MF-PROC-009."""

from __future__ import annotations

from mayfly.scan.facts import ProcUse
from mayfly.scan.judge import known_text, shown
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]


def _check(fact: ProcUse, _scene: Scene) -> Hit | None:
    values = (fact.text, *fact.argv[:1])
    if any("decoded" in value.taints for value in values):
        text = next((known_text(value) for value in values if value.texts), "")
        return Hit(f"runs an encoded command: {shown(text)}" if text else "runs an encoded command")
    return None


RULE = Rule(
    id="MF-PROC-009",
    title="Runs a command that was encoded",
    rationale="There is one reason to encode a command line: that nobody reads it.",
    severity="high",
    cwe="CWE-506",
    confidence="high",
    capabilities=("proc",),
    facts=(ProcUse,),
    check=_check,
    examples={
        "python": "import base64, os\nos.system(base64.b64decode('aWQ=').decode())",
        "bash": "echo aWQ= | base64 -d | sh",
    },
    near_misses={
        "python": "import base64\nprint(base64.b64decode('aWQ='))",
        "bash": "echo aWQ= | base64 -d",
    },
    languages=("python", "bash"),
)
