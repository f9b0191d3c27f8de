"""MF-IMP-001."""

from __future__ import annotations

from mayfly.scan.facts import ImportUse
from mayfly.scan.imports import locate
from mayfly.scan.packages import distribution_of
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]


def _check(fact: ImportUse, scene: Scene) -> Hit | None:
    if fact.guarded or locate(fact.module, scene.manifest, scene.popular) != "known":
        return None
    image = f"image {scene.manifest.image}" if scene.manifest else "the standard library"
    return Hit(f"module {fact.top} is not in {image} (it comes with {distribution_of(fact.top)})")


RULE = Rule(
    id="MF-IMP-001",
    title="The image does not hold this package",
    rationale="The program would end in ImportError; said beforehand, a person or a model can choose another image.",
    severity="low",
    cwe=None,
    facts=(ImportUse,),
    check=_check,
    examples={"python": "import numpy"},
    near_misses={"python": "import json"},
    languages=("python",),
)
