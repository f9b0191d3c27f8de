"""MF-SRC-006."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mayfly.model import Severity

from mayfly.scan.facts import Oddity
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]


def _check(fact: Oddity, _scene: Scene) -> Hit | None:
    if fact.kind == "unwalked":
        return Hit(
            "there is more to this program than a scan looks at; from here on it was not judged", severity="high"
        )
    if not fact.kind.startswith("unparsed"):
        return None
    severity: Severity = "low" if fact.kind == "unparsed-little" else "medium"
    return Hit(f"{fact.text} could not be parsed; it may not have been judged", severity=severity)


RULE = Rule(
    id="MF-SRC-006",
    title="A part was not judged",
    rationale=(
        "The grammar for this language did not take a part of the program, or the program does more than a scan "
        "follows; what stands there was not judged."
    ),
    severity="medium",
    cwe="CWE-172",
    confidence="high",
    capabilities=(),
    facts=(Oddity,),
    check=_check,
    examples={
        "bash": "echo a\nif then fi (((\necho b",
        "javascript": "let a = 1;\nlet = = 3;\nlet b = 2;",
    },
    near_misses={
        "python": "print(1)",
        "bash": "echo a",
        "javascript": "let a = 1;",
    },
    languages=("python", "bash", "javascript"),
)
