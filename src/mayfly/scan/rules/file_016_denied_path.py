"""MF-FILE-016."""

from __future__ import annotations

from mayfly.scan.facts import FileUse
from mayfly.scan.judge import shown
from mayfly.scan.paths import matches
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]


def _check(fact: FileUse, scene: Scene) -> Hit | None:
    rules = scene.policy.paths
    if not rules.only and not rules.deny:
        return None
    for text in fact.path.texts:
        if matches(text, rules.allow):
            continue
        if matches(text, rules.deny) or (rules.only and fact.path.consts):
            return Hit(f"the policy {scene.policy.name} does not allow {shown(text)}")
    return None


RULE = Rule(
    id="MF-FILE-016",
    title="The policy denies this path",
    rationale="The operator named it in the policy: paths.deny, or paths.only without naming it in paths.allow.",
    severity="high",
    cwe="CWE-284",
    confidence="high",
    capabilities=(),
    facts=(FileUse,),
    check=_check,
    examples={},
    near_misses={
        "python": "open('/data/x')",
    },
    languages=("python", "bash", "javascript"),
)
