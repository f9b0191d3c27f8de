"""MF-DYN-007."""

from __future__ import annotations

from mayfly.scan.facts import CallUse
from mayfly.scan.judge import known_text
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]


def _check(fact: CallUse, _scene: Scene) -> Hit | None:
    if fact.name != "set-attribute":
        return Hit(f"watches the interpreter with {fact.name}")
    replaced = known_text(fact.args[0]) if fact.args else ""
    return Hit(f"replaces {replaced}") if replaced.startswith(("builtins.", "__builtins__.")) else None


RULE = Rule(
    id="MF-DYN-007",
    title="Replaces builtins or watches the interpreter",
    rationale="What other code calls is no longer what it seems.",
    severity="medium",
    cwe="CWE-913",
    confidence="high",
    capabilities=("dynamic-code",),
    facts=(CallUse,),
    only={
        CallUse: (
            "set-attribute",
            "sys.settrace",
            "sys.setprofile",
            "sys.addaudithook",
            "threading.settrace",
            "gc.get_objects",
            "gc.get_referrers",
        )
    },
    check=_check,
    examples={
        "python": "import sys\nsys.settrace(lambda *a: None)",
    },
    near_misses={
        "python": "import sys\nprint(sys.version)",
    },
    languages=("python",),
)
