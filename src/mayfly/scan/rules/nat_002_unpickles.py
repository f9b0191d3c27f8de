"""MF-NAT-002."""

from __future__ import annotations

from mayfly.scan.facts import LoadUse
from mayfly.scan.pickles import dangerous_global
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]


def _check(fact: LoadUse, _scene: Scene) -> Hit | None:
    if fact.format not in ("pickle", "numpy", "torch"):
        return None
    for constant in fact.value.consts:
        if isinstance(constant, bytes) and (name := dangerous_global(constant)):
            return Hit(f"loads a pickle that calls {name}", severity="critical")
    fetched = any(text.startswith(("http://", "https://", "ftp://")) for text in fact.value.texts)
    if fetched or fact.value.taints & {"net", "input", "decoded"}:
        return Hit("loads a pickle from outside", severity="high")
    return Hit("loads a pickle")


RULE = Rule(
    id="MF-NAT-002",
    title="Unpickles what it should not trust",
    rationale="A pickle is a program: loading one runs what its maker chose.",
    severity="low",
    cwe="CWE-502",
    confidence="high",
    capabilities=("deserialise",),
    facts=(LoadUse,),
    check=_check,
    examples={
        "python": "import pickle\npickle.loads(b\"cos\\nsystem\\n(S'id'\\ntR.\")",
    },
    near_misses={
        "python": "import json\njson.loads('{}')",
    },
    languages=("python",),
)
