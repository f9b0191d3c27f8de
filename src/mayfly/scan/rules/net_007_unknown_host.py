"""MF-NET-007."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from mayfly.scan.hosts import classify_host, host_of
from mayfly.scan.judge import host_of_kind, shown

if TYPE_CHECKING:
    from mayfly.model import Severity

from mayfly.scan.facts import NetUse
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]

_PROGRAM = re.compile(
    r"\.(?:sh|bash|py|pl|rb|ps1|exe|bin|elf|so|dll|bat|jar|apk|deb|rpm|run|out)(?:$|[?#])", re.IGNORECASE
)
_RANDOM = re.compile(
    r"(?:^|\.)(?=[a-z0-9]*\d[a-z]*\d)(?=[a-z0-9]*[a-z])[a-z0-9]{8,}\.|\.(?:tk|ml|ga|cf|gq|top|xyz|cc|ru|su|pw|icu|zip|mov)$"
)


def _check(fact: NetUse, scene: Scene) -> Hit | None:
    if (host := host_of_kind(fact, scene, ("other", "shared"))) is None:
        return None
    telling = (
        fact.op == "send"
        or (fact.op == "connect" and fact.in_loop)
        or classify_host(host) == "shared"
        or host.lower().startswith(("http://", "ftp://", "ws://"))
        or _PROGRAM.search(host) is not None
        or _RANDOM.search(host_of(host)) is not None
    )
    severity: Severity = "medium" if telling else "low"
    verb = "sends data to" if fact.op == "send" else "talks to"
    return Hit(f"{verb} a host that is not well known: {shown(host)}", severity=severity)


RULE = Rule(
    id="MF-NET-007",
    title="Talks to a host that is not well known",
    rationale=(
        "The program names a host that is no common source of data, code or documentation. Data sent "
        "there, pages that anybody can put up, plain HTTP and programs fetched from there deserve a look."
    ),
    severity="low",
    cwe="CWE-923",
    confidence="medium",
    capabilities=("net",),
    facts=(NetUse,),
    only={NetUse: ("fetch", "send", "connect")},
    check=_check,
    examples={
        "python": "import requests\nrequests.get('http://cheap-metrics.biz/collect')",
        "bash": "curl http://cheap-metrics.biz/collect",
        "javascript": "fetch('http://cheap-metrics.biz/collect')",
    },
    near_misses={
        "python": "import requests\nrequests.get('https://example.com/a.json')",
        "bash": "curl https://example.com/a.json",
        "javascript": "fetch('https://example.com/a.json')",
    },
    languages=("python", "bash", "javascript"),
)
