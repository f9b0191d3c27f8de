"""MF-PROC-003."""

from __future__ import annotations

from mayfly.scan.facts import ProcUse
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]


def _check(fact: ProcUse, _scene: Scene) -> Hit | None:
    if not fact.shell or fact.text.consts:
        return None
    if fact.text.taints & {"input", "env", "loaded"}:
        return Hit("a shell runs text that comes from outside")
    return (
        Hit("a shell runs text that is put together", severity="low") if fact.text.taints & {"param", "file"} else None
    )


RULE = Rule(
    id="MF-PROC-003",
    title="A shell runs text from outside",
    rationale=("Text that somebody else chooses becomes a command line, with every meaning that a shell gives it."),
    severity="medium",
    cwe="CWE-78",
    confidence="high",
    capabilities=("proc",),
    facts=(ProcUse,),
    check=_check,
    examples={
        "python": "import os\nos.system('ls ' + input())",
        "javascript": "require('child_process').exec('ls ' + process.argv[2])",
    },
    near_misses={
        "python": "import subprocess\nsubprocess.run(['ls', input()])",
        "javascript": "require('child_process').execFile('ls', [process.argv[2]])",
    },
    languages=("python", "javascript"),
)
