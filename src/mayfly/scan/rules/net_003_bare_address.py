"""MF-NET-003."""

from __future__ import annotations

from mayfly.scan.facts import NetUse
from mayfly.scan.judge import host_of_kind, shown
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]


def _check(fact: NetUse, scene: Scene) -> Hit | None:
    if (host := host_of_kind(fact, scene, ("address",))) is None:
        return None

    return Hit(f"talks to the address {shown(host)}")


RULE = Rule(
    id="MF-NET-003",
    title="Talks to a bare address",
    rationale="Services have names; command servers often do not.",
    severity="medium",
    cwe="CWE-923",
    confidence="medium",
    capabilities=("net",),
    facts=(NetUse,),
    only={NetUse: ("fetch", "send", "connect", "raw")},
    check=_check,
    examples={
        "python": "import requests\nrequests.get('http://45.33.32.156/x')",
        "bash": "curl http://45.33.32.156/x",
        "javascript": "fetch('http://45.33.32.156/x')",
    },
    near_misses={
        "python": "import requests\nrequests.get('https://example.com/a.json')",
        "bash": "curl https://example.com/a.json",
        "javascript": "fetch('https://example.com/a.json')",
    },
    languages=("python", "bash", "javascript"),
)
