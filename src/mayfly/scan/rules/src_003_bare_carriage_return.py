"""MF-SRC-003."""

from __future__ import annotations

from mayfly.scan.facts import Oddity
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]


def _check(fact: Oddity, _scene: Scene) -> Hit | None:
    if fact.kind != "bare-cr":
        return None
    return Hit("a bare carriage return: what follows it runs, and may not show")


RULE = Rule(
    id="MF-SRC-003",
    title="A bare carriage return ends a line unseen",
    rationale="Python ends a line, and a comment, at a carriage return that many viewers do not show as one.",
    severity="medium",
    cwe="CWE-116",
    facts=(Oddity,),
    check=_check,
    examples={"python": "# harmless\rprint(1)\n"},
    near_misses={"python": "# harmless\r\nprint(1)\r\n"},
)
