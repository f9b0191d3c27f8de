"""MF-DYN-005."""

from __future__ import annotations

from mayfly.scan.facts import Introspection
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]

_LADDER = frozenset(
    {
        "__subclasses__",
        "__globals__",
        "__builtins__",
        "f_globals",
        "f_builtins",
        "f_back",
        "f_locals",
        "gi_frame",
        "cr_frame",
        "ag_frame",
        "tb_frame",
        "__getattribute__",
        "co_code",
        "func_globals",
        "__loader__",
        "__reduce_ex__",
    }
)


def _check(fact: Introspection, _scene: Scene) -> Hit | None:
    if fact.name in _LADDER:
        return Hit(f"climbs through {fact.name}")
    return Hit(f"looks at {fact.name}", severity="low")


RULE = Rule(
    id="MF-DYN-005",
    title="Climbs through the interpreter's insides",
    rationale=(
        "From any object by way of its class, subclasses and globals to everything that was imported: the "
        "classic ladder out of a restricted Python."
    ),
    severity="high",
    cwe="CWE-913",
    confidence="high",
    capabilities=("dynamic-code",),
    facts=(Introspection,),
    check=_check,
    examples={
        "python": "().__class__.__base__.__subclasses__()",
    },
    near_misses={
        "python": "print(type(1).__name__)",
    },
    languages=("python",),
)
