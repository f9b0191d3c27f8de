"""MF-DYN-002."""

from __future__ import annotations

from mayfly.scan.facts import CodeRun
from mayfly.scan.judge import known_text, shown
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]


def _check(fact: CodeRun, _scene: Scene) -> Hit | None:
    if "decoded" not in fact.value.taints or fact.how == "attribute":
        return None
    text = known_text(fact.value)
    return Hit(f"{fact.how} of encoded code: {shown(text)}" if text else f"{fact.how} of encoded code")


RULE = Rule(
    id="MF-DYN-002",
    title="Runs code that was encoded",
    rationale="There is one reason to encode code before running it: that nobody reads it.",
    severity="high",
    cwe="CWE-506",
    confidence="high",
    capabilities=("dynamic-code",),
    facts=(CodeRun,),
    check=_check,
    examples={
        "python": "import base64\nexec(base64.b64decode('cHJpbnQoMSk='))",
        "bash": 'eval "$(echo aWQ= | base64 -d)"',
        "javascript": "eval(Buffer.from('MSsx', 'base64').toString())",
    },
    near_misses={
        "python": "import base64\nprint(base64.b64decode('cHJpbnQoMSk='))",
        "bash": "echo aWQ= | base64 -d",
        "javascript": "console.log(Buffer.from('MSsx', 'base64').toString())",
    },
    languages=("python", "bash", "javascript"),
)
