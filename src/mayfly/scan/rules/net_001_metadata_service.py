"""MF-NET-001."""

from __future__ import annotations

from mayfly.scan.facts import NetUse
from mayfly.scan.judge import host_of_kind, shown
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]


def _check(fact: NetUse, scene: Scene) -> Hit | None:
    if (host := host_of_kind(fact, scene, ("metadata",))) is None:
        return None

    return Hit(f"asks the metadata service {shown(host)}")


RULE = Rule(
    id="MF-NET-001",
    title="Asks the cloud's metadata service",
    rationale="It hands out the machine's credentials to whoever asks from inside.",
    severity="critical",
    cwe="CWE-918",
    confidence="high",
    capabilities=("net",),
    facts=(NetUse,),
    only={NetUse: ("fetch", "send", "connect", "raw")},
    check=_check,
    examples={
        "python": "import requests\nrequests.get('http://169.254.169.254/latest/meta-data/')",
        "bash": "curl http://169.254.169.254/latest/meta-data/",
        "javascript": "fetch('http://169.254.169.254/latest/meta-data/')",
    },
    near_misses={
        "python": "import requests\nrequests.get('https://example.com/a.json')",
        "bash": "curl https://example.com/a.json",
        "javascript": "fetch('https://example.com/a.json')",
    },
    languages=("python", "bash", "javascript"),
)
