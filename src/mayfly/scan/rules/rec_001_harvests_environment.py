"""MF-REC-001."""

from __future__ import annotations

from mayfly.scan.facts import EnvUse
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]


def _check(fact: EnvUse, _scene: Scene) -> Hit | None:
    return None if fact.name else Hit("reads the whole environment")


RULE = Rule(
    id="MF-REC-001",
    title="Takes the whole environment",
    rationale="Environments hold keys and tokens; a program that needs one variable asks for it by name.",
    severity="medium",
    cwe="CWE-526",
    confidence="high",
    capabilities=("env",),
    facts=(EnvUse,),
    check=_check,
    examples={
        "python": "import os\nprint(dict(os.environ))",
        "bash": "printenv",
        "javascript": "console.log(JSON.stringify(process.env))",
    },
    near_misses={
        "python": "import os\nprint(os.environ['HOME'])",
        "bash": "printenv HOME",
        "javascript": "console.log(process.env.HOME)",
    },
    languages=("python", "bash", "javascript"),
)
