"""MF-DYN-004."""

from __future__ import annotations

from mayfly.scan.facts import CodeRun
from mayfly.scan.judge import DANGEROUS_NAMES, known_text, shown
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]

_POWERFUL = frozenset(
    {"__builtins__", "builtins", "ctypes", "importlib", "os", "posix", "shutil", "socket", "subprocess", "sys"}
)


def _check(fact: CodeRun, _scene: Scene) -> Hit | None:
    if fact.how == "attribute":
        name = known_text(fact.value)
        if name in DANGEROUS_NAMES:
            return Hit(f"reaches {name} by a name in a text", severity="high")
        if fact.harmless or name:
            return None
        powerful = fact.value.origin.partition(".")[0] in _POWERFUL
        return Hit(f"a name of {shown(fact.value.origin)} is computed", severity="medium" if powerful else "low")
    if fact.how == "import":
        if fact.harmless:
            return Hit(f"imports {shown(known_text(fact.value))} by a function", severity="low")
        given = fact.value.taints <= {"param"}
        return Hit("the name of the imported module is computed", severity="low" if given else None)
    return None


RULE = Rule(
    id="MF-DYN-004",
    title="Reaches things by computed names",
    rationale="A module or function whose name is put together at run time cannot be judged before it.",
    severity="medium",
    cwe="CWE-470",
    confidence="high",
    capabilities=("dynamic-code",),
    facts=(CodeRun,),
    check=_check,
    examples={
        "python": "import os\ngetattr(os, 'sys' + 'tem')('id')",
        "javascript": "require(process.argv[2])",
    },
    near_misses={
        "python": "import math\ngetattr(math, 'pi')",
        "javascript": "require('fs')",
    },
    languages=("python", "javascript"),
)
