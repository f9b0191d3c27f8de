"""MF-RES-003."""

from __future__ import annotations

from mayfly.scan.facts import AllocUse
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]


def _check(fact: AllocUse, _scene: Scene) -> Hit | None:
    gib = fact.size_bytes / (1 << 30)
    return Hit(f"asks for {gib:,.0f} GiB as one {fact.what}", severity="high" if gib >= 8 else None)


RULE = Rule(
    id="MF-RES-003",
    title="Asks for a great deal of memory",
    rationale="A gibibyte or more in one expression.",
    severity="medium",
    cwe="CWE-789",
    confidence="high",
    capabilities=("memory",),
    facts=(AllocUse,),
    check=_check,
    examples={
        "python": "x = 'a' * 10**11",
        "javascript": "Buffer.alloc(1e11)",
    },
    near_misses={
        "python": "x = 'a' * 1000",
        "javascript": "Buffer.alloc(1000)",
    },
    languages=("python", "javascript"),
)
