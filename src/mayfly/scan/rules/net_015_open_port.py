"""MF-NET-015."""

from __future__ import annotations

from mayfly.scan.facts import NetUse, ProgramEnd
from mayfly.scan.hosts import classify_host
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]


def _loopback(fact: NetUse) -> bool:
    return any(classify_host(text) == "loopback" for text in fact.target.texts)


def _check(fact: ProgramEnd, _scene: Scene) -> Hit | None:
    uses = fact.of(NetUse)
    open_ports = [f for f in uses if f.op == "listen" and _loopback(f) and any(n > 0 for n in f.port.numbers)]
    # A server and its client in one program are a demonstration or a test.
    if not open_ports or any(f.op in ("connect", "fetch", "send") for f in uses):
        return None
    return Hit(f"waits for connections on port {open_ports[0].port.numbers[0]}, which nothing in the program uses")


RULE = Rule(
    id="MF-NET-015",
    title="Opens a port that nothing in it uses",
    rationale="A port of its own choice, for somebody outside the program: a service, or a way back in.",
    severity="low",
    cwe="CWE-1125",
    confidence="medium",
    capabilities=("net-listen",),
    facts=(ProgramEnd,),
    check=_check,
    examples={
        "python": "import socket\ns = socket.socket()\ns.bind(('localhost', 4444))\ns.listen()\ns.accept()",
    },
    near_misses={
        "python": "import socket\ns = socket.socket()\ns.bind(('localhost', 0))\ns.listen()",
    },
    languages=("python", "javascript"),
)
