"""MF-NET-014."""

from __future__ import annotations

import re

from mayfly.scan.facts import NetUse
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]

_PERSONAL = re.compile(
    r"passw|secret|ssn|social_?security|credit_?card|card_?number|cvv|private_?key|bank_?account|iban|salary",
    re.IGNORECASE,
)


def _check(fact: NetUse, _scene: Scene) -> Hit | None:
    if not any(_PERSONAL.search(key) for key in fact.data.keys):
        return None
    return Hit("sends fields that look personal or secret") if fact.target.texts else None


RULE = Rule(
    id="MF-NET-014",
    title="Sends what looks like personal or secret data",
    rationale=(
        "Field names such as password, card number or social security number in a request to a host that "
        "is not well known."
    ),
    severity="medium",
    cwe="CWE-359",
    confidence="medium",
    capabilities=("net",),
    facts=(NetUse,),
    only={NetUse: ("send",)},
    check=_check,
    examples={
        "python": ("import requests\nrequests.post('https://shop.invalid/x', json={'credit_card': '1', 'ssn': '2'})"),
    },
    near_misses={
        "python": "import requests\nrequests.post('https://example.com', json={'name': 'a'})",
    },
    languages=("python",),
)
