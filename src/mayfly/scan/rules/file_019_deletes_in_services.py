"""MF-FILE-019."""

from __future__ import annotations

import re

from mayfly.scan.facts import CommandUse
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]

_ORDERS = {
    "aws": re.compile(r"\bs3\b.*\b(?:rm|rb)\b.*--(?:recursive|force)|\bdelete-\w+|terminate-instances"),
    "az": re.compile(r"\bdelete\b"),
    "docker": re.compile(r"\brm\b.*(?:-f|--force|-\w*f)|\bprune\b.*(?:-a|--all|-f)|\bvolume\s+rm\b"),
    "gcloud": re.compile(r"\bdelete\b"),
    "gsutil": re.compile(r"\brm\b.*-r|\brb\b"),
    "helm": re.compile(r"\b(?:uninstall|delete)\b"),
    "kubectl": re.compile(r"\bdelete\b|\bdrain\b"),
    "mongo": re.compile(r"dropDatabase|\.drop\("),
    "redis-cli": re.compile(r"(?i)\bflush(?:all|db)\b"),
    "terraform": re.compile(r"\bdestroy\b"),
    "virsh": re.compile(r"\b(?:destroy|undefine)\b"),
}


def _check(fact: CommandUse, _scene: Scene) -> Hit | None:
    pattern = _ORDERS.get(fact.name)
    if pattern is None or not pattern.search(" ".join(fact.args)[:4096]):
        return None
    return Hit(f"deletes what a service holds with {fact.name}")


RULE = Rule(
    id="MF-FILE-019",
    title="Deletes what a service holds",
    rationale="Clusters, buckets, volumes, caches: gone with one command, and not the program's own.",
    severity="medium",
    cwe="CWE-732",
    confidence="medium",
    capabilities=("net",),
    facts=(CommandUse,),
    check=_check,
    examples={
        "python": "import subprocess\nsubprocess.run(['kubectl', 'delete', 'namespace', 'shop'])",
        "bash": "redis-cli FLUSHALL",
    },
    near_misses={
        "python": "import subprocess\nsubprocess.run(['kubectl', 'get', 'pods'])",
        "bash": "redis-cli GET key",
    },
    languages=("python", "bash"),
)
