"""MF-IMP-004."""

from __future__ import annotations

from mayfly.scan.facts import ImportUse
from mayfly.scan.imports import import_denied
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]


def _check(fact: ImportUse, scene: Scene) -> Hit | None:
    if not import_denied(fact.module, scene.policy.imports):
        return None
    return Hit(f"the policy {scene.policy.name} denies importing {fact.module}")


RULE = Rule(
    id="MF-IMP-004",
    title="The policy denies this import",
    rationale="The operator named it in the policy: imports.deny.",
    severity="high",
    cwe=None,
    facts=(ImportUse,),
    check=_check,
    examples={},
    near_misses={"python": "import ctypes"},
    languages=("python",),
)
