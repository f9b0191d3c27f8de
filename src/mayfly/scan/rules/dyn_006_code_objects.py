"""MF-DYN-006."""

from __future__ import annotations

from mayfly.scan.facts import CodeRun, LoadUse
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]


def _check(fact: CodeRun | LoadUse, _scene: Scene) -> Hit | None:
    if isinstance(fact, LoadUse):
        return Hit("loads compiled code with marshal") if fact.format == "marshal" else None
    return Hit("makes a function out of a code object") if fact.how == "function" else None


RULE = Rule(
    id="MF-DYN-006",
    title="Makes functions out of code objects",
    rationale="Code that never was source cannot be read.",
    severity="high",
    cwe="CWE-94",
    confidence="high",
    capabilities=("dynamic-code",),
    facts=(CodeRun, LoadUse),
    check=_check,
    examples={
        "python": "import marshal\nexec(marshal.loads(b'x'))",
        "javascript": "new Function(process.argv[2])()",
    },
    near_misses={
        "python": "import json\njson.loads('1')",
        "javascript": "(function () { return 1 })()",
    },
    languages=("python", "javascript"),
)
