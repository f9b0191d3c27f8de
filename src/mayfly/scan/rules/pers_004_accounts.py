"""MF-PERS-004."""

from __future__ import annotations

from mayfly.scan.facts import CommandUse, FileUse
from mayfly.scan.judge import path_of_kind, shown
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]

_TOOLS = frozenset(
    {
        "useradd",
        "usermod",
        "userdel",
        "adduser",
        "deluser",
        "passwd",
        "chpasswd",
        "groupadd",
        "groupmod",
        "groupdel",
        "gpasswd",
        "visudo",
        "vipw",
        "vigr",
        "chage",
        "chsh",
        "setcap",
        "newusers",
        "ssh-copy-id",
    }
)


def _check(fact: FileUse | CommandUse, scene: Scene) -> Hit | None:
    if isinstance(fact, CommandUse):
        return Hit(f"changes accounts with {fact.name}")
    path = path_of_kind(fact, scene, ("accounts",))
    return None if path is None else Hit(f"changes account data: {shown(path)}")


RULE = Rule(
    id="MF-PERS-004",
    title="Changes accounts or rights",
    rationale="New users, passwords, keys and sudo rules keep a door open.",
    severity="high",
    cwe="CWE-250",
    confidence="high",
    capabilities=("persist",),
    facts=(FileUse, CommandUse),
    only={FileUse: ("write", "chmod", "chown", "link"), CommandUse: _TOOLS},
    check=_check,
    examples={
        "python": "open('/etc/sudoers', 'a').write('x ALL=(ALL) ALL')",
        "bash": "useradd -o -u 0 backdoor",
    },
    near_misses={
        "python": "open('users.txt', 'a').write('x')",
        "bash": "id",
    },
    languages=("python", "bash"),
)
