"""MF-FILE-006."""

from __future__ import annotations

from mayfly.scan.facts import FileUse
from mayfly.scan.judge import path_of_kind, shown
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]

_OPS = frozenset(["read", "write", "link", "chmod", "delete"])
_KINDS = frozenset(["device"])


def _check(fact: FileUse, scene: Scene) -> Hit | None:
    if (path := path_of_kind(fact, scene, _KINDS)) is None:
        return None

    return Hit(f"uses the device {shown(path)}")


RULE = Rule(
    id="MF-FILE-006",
    title="Uses a raw device",
    rationale="Disks and memory as devices pass by every file permission.",
    severity="high",
    cwe="CWE-668",
    confidence="high",
    capabilities=("fs-read",),
    facts=(FileUse,),
    only={FileUse: _OPS},
    check=_check,
    examples={
        "python": "open('/dev/sda', 'rb').read(512)",
        "bash": "dd if=/dev/zero of=/dev/sda",
    },
    near_misses={
        "python": "open('/dev/null', 'w')",
        "bash": "echo x > /dev/null",
    },
    languages=("python", "bash"),
)
