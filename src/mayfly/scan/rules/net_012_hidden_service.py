"""MF-NET-012."""

from __future__ import annotations

from mayfly.scan.facts import NetUse
from mayfly.scan.judge import host_of_kind, shown
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]


def _check(fact: NetUse, scene: Scene) -> Hit | None:
    if (host := host_of_kind(fact, scene, ("hidden",))) is None:
        return None

    return Hit(f"uses the hidden service {shown(host)}")


RULE = Rule(
    id="MF-NET-012",
    title="Uses a hidden service",
    rationale="Names below .onion and .i2p exist so that nobody knows who answers.",
    severity="high",
    cwe="CWE-506",
    confidence="high",
    capabilities=("net",),
    facts=(NetUse,),
    only={NetUse: ("fetch", "send", "connect", "raw")},
    check=_check,
    examples={
        "python": "import requests\nrequests.get('http://abcdefghij.onion/x')",
        "bash": "curl http://abcdefghij.onion/x",
        "javascript": "fetch('http://abcdefghij.onion/x')",
    },
    near_misses={
        "python": "import requests\nrequests.get('https://example.com/a.json')",
        "bash": "curl https://example.com/a.json",
        "javascript": "fetch('https://example.com/a.json')",
    },
    languages=("python", "bash", "javascript"),
)
