"""MF-IMP-002."""

from __future__ import annotations

from mayfly.scan.facts import ImportUse
from mayfly.scan.imports import import_named, locate
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]


def _check(fact: ImportUse, scene: Scene) -> Hit | None:
    if fact.guarded or locate(fact.module, scene.manifest, scene.popular) != "unknown":
        return None
    if import_named(fact.module, scene.policy.imports.allow):
        return None
    image = f"image {scene.manifest.image}" if scene.manifest else "the standard library"
    return Hit(f"module {fact.top} is not in {image} and is not a well-known package", confidence="medium")


RULE = Rule(
    id="MF-IMP-002",
    title="An unknown package",
    rationale="Models invent package names and attackers register them: that a name exists proves nothing.",
    severity="medium",
    cwe="CWE-1357",
    facts=(ImportUse,),
    check=_check,
    examples={"python": "import quickmathtools"},
    near_misses={"python": "try:\n    import quickmathtools\nexcept ImportError:\n    quickmathtools = None"},
    languages=("python",),
)
