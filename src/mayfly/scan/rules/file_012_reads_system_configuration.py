"""MF-FILE-012."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mayfly.scan.judge import path_of_kind, shown

if TYPE_CHECKING:
    from mayfly.model import Severity

from mayfly.scan.facts import FileUse
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]

_KINDS = frozenset({"system", "startup", "resolver"})


def _check(fact: FileUse, scene: Scene) -> Hit | None:
    if (path := path_of_kind(fact, scene, _KINDS)) is None:
        return None
    # Programs and libraries are for everybody to read.
    severity: Severity = "medium" if "/etc" in path or "/boot" in path or path.startswith(("..", "~")) else "low"
    return Hit(f"reads system configuration: {shown(path)}", severity=severity)


RULE = Rule(
    id="MF-FILE-012",
    title="Reads configuration or programs of the system",
    rationale=(
        "Settings of services, start-up files and name resolution tell how a machine can be used against its owner."
    ),
    severity="medium",
    cwe="CWE-200",
    confidence="high",
    capabilities=("fs-read",),
    facts=(FileUse,),
    only={FileUse: ("read", "encrypt")},
    check=_check,
    examples={
        "python": "open('/etc/ssl/openssl.cnf').read()",
        "bash": "cat /etc/fstab",
    },
    near_misses={
        "python": "open('/etc/os-release').read()",
        "bash": "cat /etc/os-release",
    },
    languages=("python", "bash"),
)
