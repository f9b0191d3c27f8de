"""MF-NET-005."""

from __future__ import annotations

from mayfly.scan.facts import NetUse
from mayfly.scan.judge import host_of_kind, shown
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]


def _check(fact: NetUse, scene: Scene) -> Hit | None:
    if (host := host_of_kind(fact, scene, ("encoded",))) is None:
        return None

    return Hit(f"the host is written to hide: {shown(host)}")


RULE = Rule(
    id="MF-NET-005",
    title="An address written to hide",
    rationale=(
        "Addresses as one number, in octal or hexadecimal, and look-alike names are read by resolvers and "
        "missed by people."
    ),
    severity="high",
    cwe="CWE-1007",
    confidence="high",
    capabilities=("net",),
    facts=(NetUse,),
    check=_check,
    examples={
        "python": "import requests\nrequests.get('http://2130706433/x')",
        "bash": "curl http://2130706433/x",
        "javascript": "fetch('http://2130706433/x')",
    },
    near_misses={
        "python": "import requests\nrequests.get('https://example.com/a.json')",
        "bash": "curl https://example.com/a.json",
        "javascript": "fetch('https://example.com/a.json')",
    },
    languages=("python", "bash", "javascript"),
)
