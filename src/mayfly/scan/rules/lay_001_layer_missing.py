"""MF-LAY-001."""

from __future__ import annotations

from mayfly.scan.facts import LayerGap
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]


def _check(fact: LayerGap, _scene: Scene) -> Hit | None:
    return Hit(f"the signal layer {fact.layer} was not asked: {fact.reason}")


RULE = Rule(
    id="MF-LAY-001",
    title="A signal layer that the policy names was not asked",
    rationale="Another scanner that the policy wants is not installed, or failed; our own rules were applied anyway.",
    severity="low",
    cwe=None,
    confidence="high",
    capabilities=(),
    facts=(LayerGap,),
    check=_check,
    examples={},
    near_misses={"python": "print(1)"},
    languages=("python", "bash", "javascript"),
)
