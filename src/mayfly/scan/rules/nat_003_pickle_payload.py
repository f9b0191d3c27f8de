"""MF-NAT-003."""

from __future__ import annotations

from mayfly.scan.facts import CallUse
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]


def _check(fact: CallUse, _scene: Scene) -> Hit | None:
    return Hit(f"unpickling calls {fact.args[0].origin}") if fact.args else None


RULE = Rule(
    id="MF-NAT-003",
    title="An object that runs code when it is unpickled",
    rationale="A `__reduce__` that returns a function of the system is a payload.",
    severity="high",
    cwe="CWE-502",
    confidence="high",
    capabilities=("deserialise",),
    facts=(CallUse,),
    only={CallUse: ("reduce-callable",)},
    check=_check,
    examples={
        "python": ("import os\nclass A:\n    def __reduce__(self):\n        return (os.system, ('id',))"),
    },
    near_misses={
        "python": "class A:\n    def __reduce__(self):\n        return (A, ())",
    },
    languages=("python",),
)
