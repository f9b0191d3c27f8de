"""MF-NAT-005."""

from __future__ import annotations

from mayfly.scan.facts import TextSeen
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]


def _check(fact: TextSeen, _scene: Scene) -> Hit | None:
    return Hit(f"holds {fact.name}") if fact.name.startswith("an XML entity") else None


RULE = Rule(
    id="MF-NAT-005",
    title="XML whose entities read files or explode",
    rationale="An external entity reads a file or a URL when it is parsed; entities of entities fill memory.",
    severity="medium",
    cwe="CWE-611",
    confidence="medium",
    capabilities=("deserialise",),
    facts=(TextSeen,),
    check=_check,
    examples={
        "python": "x = '<!DOCTYPE a [<!ENTITY b SYSTEM \"file:///etc/passwd\">]><a>&b;</a>'",
        "bash": 'cat <<E\n<!ENTITY b SYSTEM "file:///etc/passwd">\nE',
    },
    near_misses={
        "python": "x = '<!DOCTYPE a [<!ENTITY b \"text\">]><a>&b;</a>'",
        "bash": "echo '<a/>'",
    },
    languages=("python", "bash", "javascript"),
)
