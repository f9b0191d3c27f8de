"""MF-PERS-009."""

from __future__ import annotations

from mayfly.scan.facts import CallUse, CommandUse
from mayfly.scan.judge import known_text, shown
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]


_PLACES = ("set-PATH", "set-LD_LIBRARY_PATH", "set-PYTHONPATH")
_RUN = ("set-LD_PRELOAD", "set-BASH_ENV", "set-PROMPT_COMMAND")


def _check(fact: CallUse | CommandUse, _scene: Scene) -> Hit | None:
    if isinstance(fact, CommandUse):
        return Hit("sets LD_PRELOAD") if any(arg.startswith("LD_PRELOAD=") for arg in fact.args) else None
    if fact.name in _PLACES:
        first = known_text(fact.args[0]).partition(":")[0] if fact.args else ""
        anybodys = first.startswith(("/tmp", "/var/tmp", "/dev/shm")) or first == "."  # noqa: S108 - places to judge
        return Hit(f"puts {shown(first)} first among the programs' places", severity="medium") if anybodys else None
    return Hit(f"sets {fact.name.removeprefix('set-')}")


RULE = Rule(
    id="MF-PERS-009",
    title="Changes what programs load",
    rationale=("A preloaded library, a changed path or a prompt command runs inside everything that starts later."),
    severity="high",
    cwe="CWE-426",
    confidence="high",
    capabilities=("persist",),
    facts=(CallUse, CommandUse),
    only={CallUse: (*_PLACES, *_RUN)},
    check=_check,
    examples={
        "python": "import os\nos.system('env LD_PRELOAD=/tmp/x.so ls')",
        "bash": "export LD_PRELOAD=/tmp/x.so",
    },
    near_misses={
        "python": "import os\nos.system('env A=1 ls')",
        "bash": "export LANG=C",
    },
    languages=("python", "bash"),
)
