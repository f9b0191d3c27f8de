"""MF-PERS-007."""

from __future__ import annotations

from mayfly.scan.facts import CommandUse, FileUse
from mayfly.scan.judge import path_of_kind, shown
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]

_TOOLS = frozenset(
    {
        "iptables",
        "ip6tables",
        "nft",
        "ufw",
        "firewall-cmd",
        "setenforce",
        "auditctl",
        "aa-disable",
        "aa-teardown",
        "apparmor_parser",
        "semanage",
        "setsebool",
        "tc",
        "ebtables",
        "iptables-restore",
    }
)


def _check(fact: FileUse | CommandUse, scene: Scene) -> Hit | None:
    if isinstance(fact, FileUse):
        writes = fact.op in ("write", "chmod", "rename", "link")
        path = path_of_kind(fact, scene, ("resolver",)) if writes else None
        return None if path is None else Hit(f"changes how the machine reaches others: {shown(path)}")
    listing = {"-L", "-S", "list", "status", "show", "--list"} & set(fact.args)
    if fact.name in _TOOLS and not listing:
        return Hit(f"changes the machine's guards with {fact.name}")
    changes = fact.name in ("ip", "ifconfig", "route", "nmcli") and set(fact.args) & {
        "add",
        "del",
        "set",
        "down",
        "up",
        "flush",
    }
    return Hit(f"changes the machine's network with {fact.name}") if changes else None


RULE = Rule(
    id="MF-PERS-007",
    title="Changes firewalls, name resolution or guards",
    rationale="What is let in, what a name means and what is watched is the operator's to decide.",
    severity="high",
    cwe="CWE-693",
    confidence="high",
    capabilities=("persist",),
    facts=(FileUse, CommandUse),
    check=_check,
    examples={
        "python": "open('/etc/hosts', 'a').write('127.0.0.1 update.example.com')",
        "bash": "iptables -F",
    },
    near_misses={
        "python": "open('hosts.txt', 'a').write('x')",
        "bash": "iptables -L",
    },
    languages=("python", "bash"),
)
