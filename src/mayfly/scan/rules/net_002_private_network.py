"""MF-NET-002."""

from __future__ import annotations

from mayfly.scan.facts import NetUse
from mayfly.scan.judge import host_of_kind, shown
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]


def _check(fact: NetUse, scene: Scene) -> Hit | None:
    if (host := host_of_kind(fact, scene, ("private",))) is None:
        return None

    return Hit(f"reaches into a private network: {shown(host)}")


RULE = Rule(
    id="MF-NET-002",
    title="Reaches into a private network",
    rationale="Addresses behind the firewall are what a sandbox must not become a bridge to.",
    severity="medium",
    cwe="CWE-918",
    confidence="high",
    capabilities=("net",),
    facts=(NetUse,),
    only={NetUse: ("fetch", "send", "connect", "raw")},
    check=_check,
    examples={
        "python": "import requests\nrequests.get('http://10.0.0.5/admin')",
        "bash": "curl http://10.0.0.5/admin",
        "javascript": "fetch('http://10.0.0.5/admin')",
    },
    near_misses={
        "python": "import requests\nrequests.get('https://example.com/a.json')",
        "bash": "curl https://example.com/a.json",
        "javascript": "fetch('https://example.com/a.json')",
    },
    languages=("python", "bash", "javascript"),
)
