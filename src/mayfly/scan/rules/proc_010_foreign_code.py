"""MF-PROC-010."""

from __future__ import annotations

import re

from mayfly.scan.facts import CallUse
from mayfly.scan.judge import known_text, shown
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]

_TELLING = re.compile(r"(?i)socket|fsockopen|/inet/|\bexec\b|\bsystem\s*\(|shell_exec|popen|`|\bunlink\b|rmtree")


def _check(fact: CallUse, _scene: Scene) -> Hit | None:
    text = known_text(fact.args[0]) if fact.args else ""
    return Hit(f"one line that opens a socket or a shell: {shown(text)}") if _TELLING.search(text) else None


RULE = Rule(
    id="MF-PROC-010",
    title="Code of another language with a socket or shell",
    rationale=("One line of Perl, Ruby, PHP or awk that opens a connection or a shell is how shells are sent home."),
    severity="high",
    cwe="CWE-506",
    confidence="high",
    capabilities=("proc",),
    facts=(CallUse,),
    only={CallUse: ("foreign-code",)},
    check=_check,
    examples={
        "python": "import os\nos.system(\"perl -e 'use Socket;socket(S,2,1,6);exec(q(sh));'\")",
        "bash": "ruby -rsocket -e 'TCPSocket.new(1,2)'",
    },
    near_misses={
        "python": "import os\nos.system(\"perl -e 'print 1'\")",
        "bash": "awk '{print $1}' a.txt",
    },
    languages=("python", "bash"),
)
