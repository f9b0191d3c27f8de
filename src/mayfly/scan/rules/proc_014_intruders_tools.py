"""MF-PROC-014."""

from __future__ import annotations

import re

from mayfly.scan.facts import CommandUse
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]

_POWERSHELL = re.compile(
    r"(?i)(?:^|\s)[-/](?:e|ec|en|enc\w*|w\w*\s+hidden)\b|hidden|\biex\b|invoke-(?:expression|webrequest|mimikatz)|"
    r"download(?:string|file|data)|frombase64string|bypass|set-mppreference"
)
# A system's own tools, and the arguments by which they serve an intruder.
_ARGUMENTS = {
    "powershell": _POWERSHELL,
    "pwsh": _POWERSHELL,
    "mshta": re.compile(r"(?i)https?:|javascript:|vbscript:"),
    "certutil": re.compile(r"(?i)[-/](?:urlcache|decode)"),
    "bitsadmin": re.compile(r"(?i)/(?:transfer|addfile)"),
    "regsvr32": re.compile(r"(?i)https?:|scrobj"),
    "rundll32": re.compile(r"(?i)javascript:|https?:|comsvcs"),
    "vssadmin": re.compile(r"(?i)delete"),
    "wbadmin": re.compile(r"(?i)delete"),
    "bcdedit": re.compile(r"(?i)/set"),
    "wevtutil": re.compile(r"(?i)\b(?:cl|clear-log)\b"),
    "schtasks": re.compile(r"(?i)/create"),
    "reg": re.compile(r"(?i)add\b.*CurrentVersion\\*Run|save\b.*\\?(?:SAM|SYSTEM|SECURITY)\b"),
    "netsh": re.compile(r"(?i)key\s*=\s*clear|firewall\s+(?:set|add|delete)|advfirewall"),
    "net": re.compile(r"(?i)^\s*(?:user|localgroup)\b.*/add"),
    "net1": re.compile(r"(?i)^\s*(?:user|localgroup)\b.*/add"),
    "wmic": re.compile(r"(?i)process\s+call\s+create|shadowcopy\s+delete"),
    "sshpass": re.compile(r"-p|-f|-e"),
}


def _check(fact: CommandUse, _scene: Scene) -> Hit | None:
    pattern = _ARGUMENTS.get(fact.name.lower().removesuffix(".exe"))
    if pattern is None or not pattern.search(" ".join(fact.args)[:4096]):
        return None
    return Hit(f"uses {fact.name} as intruders do", severity="medium" if fact.name == "sshpass" else None)


RULE = Rule(
    id="MF-PROC-014",
    title="Uses a system's own tools as intruders do",
    rationale=(
        "Hidden or encoded PowerShell, certutil that downloads, shadow copies that are deleted, passwords on ssh's "
        "command line: tools that every machine has, with arguments that hardly anybody else gives them."
    ),
    severity="high",
    cwe="CWE-78",
    confidence="high",
    capabilities=("proc",),
    facts=(CommandUse,),
    check=_check,
    examples={
        "python": "import subprocess\nsubprocess.Popen('powershell -WindowStyle Hidden -enc SQBFAFgA', shell=True)",
        "bash": "sshpass -p secret ssh admin@host true",
    },
    near_misses={
        "python": "import subprocess\nsubprocess.run(['powershell', 'Get-Date'])",
        "bash": "ssh -V",
    },
    languages=("python", "bash"),
)
