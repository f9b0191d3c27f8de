"""MF-NET-011."""

from __future__ import annotations

import re

from mayfly.scan.facts import FileUse
from mayfly.scan.judge import shown
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]

_PROGRAM = re.compile(
    r"\.(?:sh|bash|py|pl|rb|js|ps1|exe|bin|elf|so|dll|bat|jar|apk|deb|rpm|run|out|service|pyc)$", re.IGNORECASE
)


def _check(fact: FileUse, _scene: Scene) -> Hit | None:
    if "net" not in fact.content.taints:
        return None
    for text in fact.path.texts:
        if _PROGRAM.search(text):
            return Hit(f"stores a program from the network: {shown(text)}")
    return None


RULE = Rule(
    id="MF-NET-011",
    title="Stores a program from the network",
    rationale="A downloaded script or executable is code that nobody has looked at.",
    severity="medium",
    cwe="CWE-494",
    confidence="high",
    capabilities=("net", "fs-write"),
    facts=(FileUse,),
    only={FileUse: ("write",)},
    check=_check,
    examples={
        "python": ("import urllib.request\nurllib.request.urlretrieve('https://example.com/a', 'setup.sh')"),
        "bash": "curl -o setup.sh https://example.com/a",
    },
    near_misses={
        "python": ("import urllib.request\nurllib.request.urlretrieve('https://example.com/a', 'data.csv')"),
        "bash": "curl -o data.csv https://example.com/a",
    },
    languages=("python", "bash"),
)
