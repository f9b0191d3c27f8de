"""MF-IMP-005."""

from __future__ import annotations

from mayfly.scan.facts import ImportUse
from mayfly.scan.imports import import_named
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]


def _check(fact: ImportUse, scene: Scene) -> Hit | None:
    names = scene.policy.imports
    if not names.only or import_named(fact.module, names.allow):
        return None
    return Hit(f"the policy {scene.policy.name} does not allow importing {fact.module}")


RULE = Rule(
    id="MF-IMP-005",
    title="The policy does not allow this import",
    rationale="The policy has an allow-list (imports.only) and this module is not on it.",
    severity="high",
    cwe=None,
    facts=(ImportUse,),
    check=_check,
    examples={},
    near_misses={"python": "import ctypes"},
    languages=("python",),
)
