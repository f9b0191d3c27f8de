"""MF-REC-002."""

from __future__ import annotations

from mayfly.scan.facts import CallUse, CommandUse, FileUse
from mayfly.scan.judge import path_of_kind, shown
from mayfly.scan.paths import classify
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]

_TOOLS = frozenset({"systemd-detect-virt", "virt-what", "dmidecode", "imvirt", "facter"})


def _check(fact: FileUse | CallUse | CommandUse, scene: Scene) -> Hit | None:
    if isinstance(fact, FileUse):
        path = path_of_kind(fact, scene, ("container",))
        return None if path is None else Hit(f"looks for signs of a sandbox: {shown(path)}")
    if isinstance(fact, CommandUse):
        return Hit(f"looks for signs of a sandbox with {fact.name}")
    if fact.name in ("sys.gettrace", "sys.getprofile"):
        return Hit("looks for a debugger")
    paths = fact.args[0].texts if fact.args else ()
    telling = next((text for text in paths if classify(text) == "container"), None)
    return Hit(f"looks for signs of a sandbox: {shown(telling)}") if telling else None


RULE = Rule(
    id="MF-REC-002",
    title="Looks whether it is watched",
    rationale=(
        "Tell-tale files of containers and virtual machines, debuggers, hardware names: who asks behaves "
        "otherwise when unwatched."
    ),
    severity="medium",
    cwe="CWE-506",
    confidence="high",
    capabilities=("fs-read",),
    facts=(FileUse, CallUse, CommandUse),
    only={FileUse: ("read", "list"), CallUse: ("sys.gettrace", "sys.getprofile", "file-test"), CommandUse: _TOOLS},
    check=_check,
    examples={
        "python": "import os\nos.path.exists('/.dockerenv')",
        "bash": "systemd-detect-virt",
    },
    near_misses={
        "python": "import os\nos.path.exists('data.csv')",
        "bash": "test -e data.csv",
    },
    languages=("python", "bash"),
)
