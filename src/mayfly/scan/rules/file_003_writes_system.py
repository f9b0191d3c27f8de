"""MF-FILE-003."""

from __future__ import annotations

from mayfly.scan.facts import FileUse
from mayfly.scan.judge import path_of_kind, shown
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]

_OPS = frozenset(["write", "chmod", "chown", "link", "rename", "encrypt"])
_KINDS = frozenset(["system", "kernel", "credentials", "process", "public"])


def _check(fact: FileUse, scene: Scene) -> Hit | None:
    # A mode or an owner given to a whole home or to everything.
    kinds = _KINDS | {"root", "home"} if fact.op in ("chmod", "chown") else _KINDS
    if (path := path_of_kind(fact, scene, kinds)) is None:
        return None

    return Hit(f"changes a system path: {shown(path)}")


RULE = Rule(
    id="MF-FILE-003",
    title="Changes the system",
    rationale=(
        "Programs, libraries and configuration below /etc, /usr, /bin, /lib, /boot and the kernel files "
        "below /proc and /sys belong to the system; a program has its own directory to write to."
    ),
    severity="high",
    cwe="CWE-732",
    confidence="high",
    capabilities=("fs-write",),
    facts=(FileUse,),
    only={FileUse: _OPS},
    check=_check,
    examples={
        "python": "open('/usr/bin/helper', 'w').write('x')",
        "bash": "echo x > /etc/motd",
        "javascript": "require('fs').writeFileSync('/usr/lib/a.js', 'x')",
    },
    near_misses={
        "python": "open('out.txt', 'w').write('x')",
        "bash": "echo x > out.txt",
        "javascript": "require('fs').writeFileSync('out.txt', 'x')",
    },
    languages=("python", "bash", "javascript"),
)
