"""MF-PERS-001."""

from __future__ import annotations

from mayfly.scan.facts import CommandUse, FileUse
from mayfly.scan.judge import path_of_kind, shown
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]


def _check(fact: FileUse | CommandUse, scene: Scene) -> Hit | None:
    if isinstance(fact, CommandUse):
        lists = {"-l", "list-timers"} & set(fact.args)
        return Hit(f"schedules with {fact.name}") if not lists else None
    path = path_of_kind(fact, scene, ("startup",))
    return Hit(f"writes the schedule {shown(path)}") if path is not None and ("cron" in path or "/at" in path) else None


RULE = Rule(
    id="MF-PERS-001",
    title="Schedules itself",
    rationale="cron, at and timers start a program again when nobody looks.",
    severity="high",
    cwe="CWE-506",
    confidence="high",
    capabilities=("persist",),
    facts=(FileUse, CommandUse),
    only={FileUse: ("write", "chmod", "link"), CommandUse: ("crontab", "at", "batch", "schtasks")},
    check=_check,
    examples={
        "python": "open('/etc/cron.d/x', 'w').write('* * * * * root id')",
        "bash": '(crontab -l; echo "* * * * * id") | crontab -',
    },
    near_misses={
        "python": "open('crontab.txt', 'w').write('x')",
        "bash": "crontab -l",
    },
    languages=("python", "bash"),
)
