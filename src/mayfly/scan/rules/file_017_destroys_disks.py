"""MF-FILE-017."""

from __future__ import annotations

from mayfly.scan.facts import CommandUse
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]

_TOOLS = frozenset({"wipefs", "fdisk", "sfdisk", "parted", "sgdisk", "blkdiscard", "hdparm", "cryptsetup", "lvremove"})


def _check(fact: CommandUse, _scene: Scene) -> Hit | None:
    if fact.name in _TOOLS or fact.name.startswith("mkfs"):
        return Hit(f"runs {fact.name}, which destroys what a disk holds")
    if fact.name in ("shred", "wipe", "srm"):
        return Hit(f"runs {fact.name}: what it overwrites cannot be had back", severity="high")
    return None


RULE = Rule(
    id="MF-FILE-017",
    title="Formats, wipes or partitions",
    rationale="Nothing on the disk survives it.",
    severity="critical",
    cwe="CWE-732",
    confidence="high",
    capabilities=("fs-write", "proc"),
    facts=(CommandUse,),
    check=_check,
    examples={
        "python": "import os\nos.system('mkfs.ext4 /dev/sdb')",
        "bash": "wipefs -a /dev/sda",
    },
    near_misses={
        "python": "import os\nos.system('df -h')",
        "bash": "df -h",
    },
    languages=("python", "bash"),
)
