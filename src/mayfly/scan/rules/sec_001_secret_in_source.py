"""MF-SEC-001."""

from __future__ import annotations

from mayfly.scan.facts import TextSeen
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]


def _check(fact: TextSeen, _scene: Scene) -> Hit | None:
    if fact.name.startswith("an XML entity"):
        return None
    return Hit(f"a secret in the source: {fact.name}", severity="low" if fact.name == "a password" else None)


RULE = Rule(
    id="MF-SEC-001",
    title="A secret stands in the source",
    rationale="Keys and tokens in a program end in logs, in model contexts and in repositories.",
    severity="medium",
    cwe="CWE-798",
    confidence="high",
    capabilities=(),
    facts=(TextSeen,),
    check=_check,
    examples={
        "python": "KEY = 'AKIAQYLPMN5HNBXTRZQK'",
        "bash": "TOKEN=ghp_a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8",
        "javascript": "const k = 'xoxb-123456789012-abcdefABCDEF12345678'",
    },
    near_misses={
        "python": "KEY = 'AKIA'",
        "bash": "TOKEN=$1",
        "javascript": "const k = 'xoxb'",
    },
    languages=("python", "bash", "javascript"),
)
