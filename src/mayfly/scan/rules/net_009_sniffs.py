"""MF-NET-009."""

from __future__ import annotations

from mayfly.scan.facts import CallUse, CommandUse, NetUse
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]

_TOOLS = frozenset(
    {
        "tcpdump",
        "tshark",
        "wireshark",
        "dumpcap",
        "ettercap",
        "arpspoof",
        "bettercap",
        "hping3",
        "iftop",
        "ngrep",
        "dsniff",
        "aircrack-ng",
        "airodump-ng",
        "macchanger",
        "mitmproxy",
        "responder",
    }
)


def _check(fact: NetUse | CommandUse | CallUse, _scene: Scene) -> Hit | None:
    if isinstance(fact, NetUse):
        return Hit("captures or sends raw packets")
    if isinstance(fact, CommandUse):
        if fact.name in ("netstat", "ss") or (fact.name == "lsof" and "-i" in fact.args):
            return Hit("lists the machine's connections", severity="medium")
        return Hit(f"runs the packet tool {fact.name}") if fact.name in _TOOLS else None
    if fact.name.startswith(("psutil.net_connections", "psutil.net_if_addrs")):
        return Hit("watches the machine's connections", severity="medium")
    return Hit("watches the machine's traffic", severity="medium" if fact.in_loop else "low")


RULE = Rule(
    id="MF-NET-009",
    title="Captures or forges packets",
    rationale="Raw sockets and sniffers see the traffic of others.",
    severity="high",
    cwe="CWE-319",
    confidence="high",
    capabilities=("net",),
    facts=(NetUse, CommandUse, CallUse),
    only={NetUse: ("raw",), CallUse: ("psutil.net_connections*", "psutil.net_if_addrs*", "psutil.net_io*")},
    check=_check,
    examples={
        "python": "from scapy.all import sniff\nsniff(count=10)",
        "bash": "tcpdump -i any",
    },
    near_misses={
        "python": "import socket\nsocket.socket()",
        "bash": "ping -c 1 example.com",
    },
    languages=("python", "bash"),
)
