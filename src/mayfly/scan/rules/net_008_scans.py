"""MF-NET-008."""

from __future__ import annotations

from mayfly.scan.facts import UNKNOWN, CallUse, CommandUse, NetUse
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]

_SCANNERS = frozenset(
    {"nmap", "masscan", "zmap", "unicornscan", "arp-scan", "nbtscan", "enum4linux", "nikto", "rustscan"}
)


def _check(fact: NetUse | CallUse | CommandUse, _scene: Scene) -> Hit | None:
    if isinstance(fact, CommandUse):
        return Hit(f"runs the scanner {fact.name}")
    if isinstance(fact, CallUse):
        return Hit("scans ports")
    several = fact.in_loop and (len(fact.port.consts) != 1 or len(fact.target.consts) != 1)
    if not several or fact.target == UNKNOWN:
        return None
    # A program that is handed its targets may have been handed its own.
    return Hit("connects to many hosts or ports in a loop", severity=None if fact.target.texts else "low")


RULE = Rule(
    id="MF-NET-008",
    title="Scans hosts or ports",
    rationale="Trying one port or host after another maps a network for whoever comes next.",
    severity="medium",
    cwe="CWE-200",
    confidence="high",
    capabilities=("net",),
    facts=(NetUse, CallUse, CommandUse),
    only={NetUse: ("connect",), CallUse: ("port-scan", "nmap.*"), CommandUse: _SCANNERS},
    check=_check,
    examples={
        "python": (
            "import socket\nfor port in range(1, 1024):\n    s = socket.socket()\n    s.connect_ex(('10.1.1.1', port))"
        ),
        "bash": "nmap -p- 10.1.1.1",
    },
    near_misses={
        "python": "import socket\nsocket.create_connection(('example.com', 80))",
        "bash": "curl https://example.com",
    },
    languages=("python", "bash"),
)
