"""MF-REC-006."""

from __future__ import annotations

import re

from mayfly.scan.facts import CommandUse
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]

_DROPS = re.compile(r"(?i)\bdrop\s+(?:database|schema)\b|dropDatabase")


def _check(fact: CommandUse, _scene: Scene) -> Hit | None:
    tools = ("mysqldump", "mysqlpump", "pg_dumpall", "mongodump", "redis-dump")
    everything = fact.name != "mysqldump" or {"--all-databases", "-A"} & set(fact.args)
    if fact.name in ("mysql", "mariadb", "psql", "mongo", "mongosh") and _DROPS.search(" ".join(fact.args)[:4096]):
        return Hit(f"deletes a whole database with {fact.name}", severity="high")
    return Hit(f"dumps whole databases with {fact.name}") if fact.name in tools and everything else None


RULE = Rule(
    id="MF-REC-006",
    title="Dumps or deletes whole databases",
    rationale="Everything at once is what one takes who does not know yet what is worth taking.",
    severity="medium",
    cwe="CWE-200",
    confidence="high",
    capabilities=("fs-read",),
    facts=(CommandUse,),
    check=_check,
    examples={
        "python": "import os\nos.system('pg_dumpall -U postgres')",
        "bash": "mysqldump --all-databases -u root",
    },
    near_misses={
        "python": "import os\nos.system('pg_dump orders')",
        "bash": "mysqldump shop orders",
    },
    languages=("python", "bash"),
)
