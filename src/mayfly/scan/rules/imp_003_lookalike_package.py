"""MF-IMP-003."""

from __future__ import annotations

from mayfly.scan.facts import ImportUse
from mayfly.scan.imports import import_named, locate, resembles
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]


def _check(fact: ImportUse, scene: Scene) -> Hit | None:
    if locate(fact.module, scene.manifest, scene.popular) != "lookalike":
        return None
    if import_named(fact.module, scene.policy.imports.allow):
        return None
    return Hit(f"module {fact.top} is named almost like {resembles(fact.top, scene.popular)}", confidence="medium")


RULE = Rule(
    id="MF-IMP-003",
    title="A package named almost like a well-known one",
    rationale="Typo-squatting: one letter off a popular name is how malicious packages are found by mistake.",
    severity="medium",
    cwe="CWE-1357",
    facts=(ImportUse,),
    check=_check,
    examples={"python": "import reqeusts"},
    near_misses={"python": "import requests"},
    languages=("python",),
)
