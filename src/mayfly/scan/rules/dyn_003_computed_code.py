"""MF-DYN-003."""

from __future__ import annotations

from mayfly.scan.facts import CodeRun
from mayfly.scan.judge import known_text, shown
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]


def _check(fact: CodeRun, _scene: Scene) -> Hit | None:
    if fact.harmless or fact.how not in ("eval", "exec", "compile", "command") or "net" in fact.value.taints:
        return None
    text = known_text(fact.value)
    return Hit(
        f"{fact.how} of a text that reaches for the system: {shown(text)}"
        if text
        else f"{fact.how} of a text that is not known"
    )


RULE = Rule(
    id="MF-DYN-003",
    title="Runs code that is put together",
    rationale=(
        "eval, exec and compile of a text that is not known, or that reaches for the system: what runs is "
        "not what was read."
    ),
    severity="medium",
    cwe="CWE-95",
    confidence="high",
    capabilities=("dynamic-code",),
    facts=(CodeRun,),
    check=_check,
    examples={
        "python": "eval(input())",
        "bash": 'f() { eval "$1"; }\nf "ls -a /app"',
        "javascript": "eval(process.argv[2])",
    },
    near_misses={
        "python": "print(eval('1 + 1'))",
        "bash": "echo eval",
        "javascript": "console.log('eval')",
    },
    languages=("python", "bash", "javascript"),
)
