"""MF-NET-010."""

from __future__ import annotations

from mayfly.scan.facts import NetUse
from mayfly.scan.judge import host_of_kind, shown
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]


def _check(fact: NetUse, scene: Scene) -> Hit | None:
    if (host := host_of_kind(fact, scene, ("any", "address", "private"))) is None:
        return None

    return Hit(f"listens on {shown(host)}")


RULE = Rule(
    id="MF-NET-010",
    title="Listens for the whole network",
    rationale="A port that is open on every interface is a door.",
    severity="medium",
    cwe="CWE-1327",
    confidence="high",
    capabilities=("net",),
    facts=(NetUse,),
    only={NetUse: ("listen",)},
    check=_check,
    examples={
        "python": "import socket\ns = socket.socket()\ns.bind(('0.0.0.0', 4444))",
        "bash": "nc -l -p 4444",
        "javascript": "require('net').createServer().listen(4444, '0.0.0.0')",
    },
    near_misses={
        "python": "import socket\ns = socket.socket()\ns.bind(('127.0.0.1', 4444))",
        "bash": "echo listening",
        "javascript": "require('net').createServer().listen(4444, '127.0.0.1')",
    },
    languages=("python", "bash", "javascript"),
)
