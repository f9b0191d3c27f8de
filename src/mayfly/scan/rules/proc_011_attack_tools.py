"""MF-PROC-011."""

from __future__ import annotations

from mayfly.scan.facts import CommandUse
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]

_TOOLS = frozenset(
    {
        "hydra",
        "john",
        "hashcat",
        "medusa",
        "ncrack",
        "msfconsole",
        "msfvenom",
        "sqlmap",
        "mimikatz",
        "xmrig",
        "minerd",
        "cpuminer",
        "ethminer",
        "cgminer",
        "crackmapexec",
        "linpeas.sh",
        "linpeas",
        "pspy",
        "pspy64",
        "chisel",
        "ligolo",
        "gobuster",
        "dirb",
        "wfuzz",
        "ffuf",
        "slowloris",
        "hping",
        "beef",
        "setoolkit",
        "weevely",
        "empire",
        "evil-winrm",
        "impacket-secretsdump",
    }
)


def _check(fact: CommandUse, _scene: Scene) -> Hit | None:
    if fact.name.lower() in _TOOLS:
        return Hit(f"runs {fact.name}")
    return Hit("mines for somebody") if any("stratum+" in arg for arg in fact.args) else None


RULE = Rule(
    id="MF-PROC-011",
    title="Runs a known attack or mining tool",
    rationale="Password crackers, exploit frameworks and miners have names.",
    severity="high",
    cwe="CWE-506",
    confidence="high",
    capabilities=("proc",),
    facts=(CommandUse,),
    check=_check,
    examples={
        "python": "import os\nos.system('hydra -l a -P b ssh://192.0.2.1')",
        "bash": "xmrig -o pool",
    },
    near_misses={
        "python": "import os\nos.system('ls')",
        "bash": "ls",
    },
    languages=("python", "bash"),
)
