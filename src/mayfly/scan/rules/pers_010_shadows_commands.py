"""MF-PERS-010."""

from __future__ import annotations

from mayfly.scan.facts import CallUse
from mayfly.scan.judge import known_text, shown
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]


def _check(fact: CallUse, _scene: Scene) -> Hit | None:
    return Hit(f"lets another command stand behind a common name: {shown(known_text(fact.args[0]))}")


RULE = Rule(
    id="MF-PERS-010",
    title="Puts another command behind a common name",
    rationale="Who types `ls` or `sudo` afterwards runs something else.",
    severity="medium",
    cwe="CWE-506",
    confidence="medium",
    capabilities=("persist",),
    facts=(CallUse,),
    only={CallUse: ("shadow-command",)},
    check=_check,
    examples={
        "bash": "alias ls='rm -r'",
    },
    near_misses={
        "bash": "alias ls='ls --color=auto'\nalias ll='ls -l'",
    },
    languages=("bash",),
)
