"""MF-PERS-003."""

from __future__ import annotations

from mayfly.scan.facts import CallUse, FileUse
from mayfly.scan.judge import path_of_kind, shown
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]


def _check(fact: FileUse | CallUse, scene: Scene) -> Hit | None:
    if isinstance(fact, CallUse):
        run_key = any("currentversion\\run" in text.lower() for value in fact.args for text in value.texts)
        return Hit("writes an autostart entry") if run_key else None
    path = path_of_kind(fact, scene, ("startup",))
    if path is None or "cron" in path:
        return None
    return Hit(f"writes a start-up file: {shown(path)}")


RULE = Rule(
    id="MF-PERS-003",
    title="Writes files that are run by themselves",
    rationale=(
        "Shell profiles, services, autostart entries, `sitecustomize`, Git hooks: what stands there runs "
        "later, as somebody else."
    ),
    severity="high",
    cwe="CWE-506",
    confidence="high",
    capabilities=("persist", "fs-write"),
    facts=(FileUse, CallUse),
    only={FileUse: ("write", "link", "chmod", "rename"), CallUse: ("winreg.*",)},
    check=_check,
    examples={
        "python": "import os\nopen(os.path.expanduser('~/.bashrc'), 'a').write('x')",
        "bash": "echo x >> ~/.profile",
    },
    near_misses={
        "python": "open('profile.txt', 'a').write('x')",
        "bash": "echo x >> profile",
    },
    languages=("python", "bash"),
)
