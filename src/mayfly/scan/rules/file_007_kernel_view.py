"""MF-FILE-007."""

from __future__ import annotations

from mayfly.scan.facts import FileUse
from mayfly.scan.judge import path_of_kind, shown
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]

_OPS = frozenset(["encrypt", "link", "list", "read"])
_KINDS = frozenset(["process", "kernel"])


def _check(fact: FileUse, scene: Scene) -> Hit | None:
    if (path := path_of_kind(fact, scene, _KINDS)) is None:
        return None

    return Hit(f"looks into {shown(path)}")


RULE = Rule(
    id="MF-FILE-007",
    title="Reads the insides of processes or of the kernel",
    rationale=(
        "Memory, environment and descriptors of processes, and kernel state below /proc and /sys, are how "
        "programs look around where they were put."
    ),
    severity="medium",
    cwe="CWE-200",
    confidence="high",
    capabilities=("fs-read",),
    facts=(FileUse,),
    only={FileUse: _OPS},
    check=_check,
    examples={
        "python": "open('/proc/1/environ').read()",
        "bash": "cat /proc/1/maps",
    },
    near_misses={
        "python": "open('/proc/cpuinfo').read()",
        "bash": "cat /proc/meminfo",
    },
    languages=("python", "bash"),
)
