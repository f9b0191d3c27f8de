"""MF-PERS-002."""

from __future__ import annotations

from mayfly.scan.facts import CommandUse
from mayfly.scan.judge import verbs
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]


def _check(fact: CommandUse, _scene: Scene) -> Hit | None:
    if fact.name in ("systemctl", "service", "rc-service", "launchctl", "initctl", "update-rc.d", "chkconfig", "sc"):
        words = verbs(fact)
        if words & {"stop", "disable", "mask", "kill", "remove", "unload", "delete"}:
            return Hit(f"switches a service off with {fact.name}", severity="high")
        if words & {
            "start",
            "restart",
            "enable",
            "reload",
            "daemon-reload",
            "load",
            "edit",
            "create",
            "on",
            "defaults",
        }:
            return Hit(f"starts or installs a service with {fact.name}")
    return None


RULE = Rule(
    id="MF-PERS-002",
    title="Starts, stops or installs services",
    rationale="Services are the machine's; stopping one switches something off for everybody.",
    severity="medium",
    cwe="CWE-250",
    confidence="high",
    capabilities=("persist", "proc"),
    facts=(CommandUse,),
    check=_check,
    examples={
        "python": "import os\nos.system('systemctl stop auditd')",
        "bash": "service ssh stop",
    },
    near_misses={
        "python": "import os\nos.system('systemctl status ssh')",
        "bash": "systemctl list-units",
    },
    languages=("python", "bash"),
)
