"""MF-PROC-008."""

from __future__ import annotations

from mayfly.scan.facts import CommandUse
from mayfly.scan.judge import verbs
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]

_TOOLS = frozenset(
    {
        "shutdown",
        "reboot",
        "halt",
        "poweroff",
        "telinit",
        "swapoff",
        "setterm",
        "hostnamectl",
        "efibootmgr",
        "grub-install",
        "update-grub",
    }
)


def _check(fact: CommandUse, _scene: Scene) -> Hit | None:
    if fact.name in _TOOLS:
        return Hit(f"runs {fact.name}")
    if fact.name == "init" and verbs(fact) & {"0", "6"}:
        return Hit("changes the run level")
    writes = fact.name == "sysctl" and ("-w" in fact.args or any("=" in arg for arg in fact.args))
    sets_clock = fact.name in ("date", "timedatectl", "hwclock") and (
        verbs(fact) & {"set-time"} or {"-s", "--set", "-w"} & set(fact.args)
    )
    return Hit(f"changes kernel settings or the clock with {fact.name}") if writes or sets_clock else None


RULE = Rule(
    id="MF-PROC-008",
    title="Stops or reconfigures the machine",
    rationale="Shutting down, setting the clock, kernel settings: no business of a program.",
    severity="high",
    cwe="CWE-250",
    confidence="high",
    capabilities=("proc",),
    facts=(CommandUse,),
    check=_check,
    examples={
        "python": "import os\nos.system('shutdown -h now')",
        "bash": "reboot",
    },
    near_misses={
        "python": "import os\nos.system('uptime')",
        "bash": "date",
    },
    languages=("python", "bash"),
)
