"""MF-NET-013."""

from __future__ import annotations

from mayfly.scan.facts import NetUse
from mayfly.scan.hosts import host_matches, host_of
from mayfly.scan.judge import shown
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]


def _check(fact: NetUse, scene: Scene) -> Hit | None:
    rules = scene.policy.hosts
    if not rules.only and not rules.deny:
        return None
    for text in fact.target.texts:
        if not host_of(text) or host_matches(text, rules.allow):
            continue
        if rules.only or host_matches(text, rules.deny):
            return Hit(f"the policy {scene.policy.name} does not allow {shown(text)}")
    return None


RULE = Rule(
    id="MF-NET-013",
    title="The policy denies this host",
    rationale="The operator named it in the policy: hosts.deny, or hosts.only without naming it in hosts.allow.",
    severity="high",
    cwe="CWE-284",
    confidence="high",
    capabilities=(),
    facts=(NetUse,),
    check=_check,
    examples={},
    near_misses={
        "python": "import requests\nrequests.get('https://example.com/a.json')",
        "bash": "curl https://example.com/a.json",
        "javascript": "fetch('https://example.com/a.json')",
    },
    languages=("python", "bash", "javascript"),
)
