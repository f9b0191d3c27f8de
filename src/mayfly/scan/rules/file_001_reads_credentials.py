"""MF-FILE-001."""

from __future__ import annotations

from mayfly.scan.facts import FileUse
from mayfly.scan.judge import path_of_kind, shown
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]

_OPS = frozenset(["encrypt", "link", "list", "read", "rename"])
_KINDS = frozenset(["credentials"])


def _check(fact: FileUse, scene: Scene) -> Hit | None:
    if (path := path_of_kind(fact, scene, _KINDS)) is None:
        return None

    return Hit(f"uses credentials: {shown(path)}")


RULE = Rule(
    id="MF-FILE-001",
    title="Reads keys, tokens or password hashes",
    rationale=(
        "Private keys, cloud and browser credentials and password hashes are what an intruder takes "
        "first; a program that computes something needs none of them."
    ),
    severity="high",
    cwe="CWE-522",
    confidence="high",
    capabilities=("fs-read",),
    facts=(FileUse,),
    only={FileUse: _OPS},
    check=_check,
    examples={
        "python": "open('/root/.ssh/id_rsa').read()",
        "bash": "cat ~/.aws/credentials",
        "javascript": "require('fs').readFileSync('/etc/shadow')",
    },
    near_misses={
        "python": "open('settings.json').read()",
        "bash": "cat notes.txt",
        "javascript": "require('fs').readFileSync('data.csv')",
    },
    languages=("python", "bash", "javascript"),
)
