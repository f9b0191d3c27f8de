"""MF-FILE-005."""

from __future__ import annotations

import re

from mayfly.scan.facts import FileUse
from mayfly.scan.judge import path_of_kind, shown
from mayfly.scan.paths import matches
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]

_KINDS = frozenset(
    {"root", "home", "system", "accounts", "credentials", "kernel", "log", "startup", "resolver", "device", "public"}
)

_PEOPLES = re.compile(
    r"^(?:~|/home/[^/]+|/root|/Users/[^/]+)/(?:Desktop|Documents|Downloads|Music|Pictures|Videos|Library|\*)(?:/|$)"
)
_HERE = frozenset({"*", "./*", ".", "./", "..", "../", "../*", ".*"})


def _check(fact: FileUse, scene: Scene) -> Hit | None:
    walked = "walk" in fact.path.taints and fact.op == "delete"
    if fact.op != "delete-tree" and not walked:
        return None
    path = path_of_kind(fact, scene, _KINDS)
    if path is not None:
        return Hit(f"deletes everything below {shown(path)}")
    if walked:
        return None
    for text in fact.path.texts:
        if _PEOPLES.match(text) and not matches(text, scene.policy.paths.allow):
            return Hit(f"deletes a directory of a person: {shown(text)}", severity="high")
        if text in _HERE:
            return Hit("deletes everything in the working directory", severity="medium")
    return None


RULE = Rule(
    id="MF-FILE-005",
    title="Deletes a whole tree that is not its own",
    rationale=(
        "Deleting from the root, a home directory or a system directory downwards is destruction, "
        "whatever the reason given."
    ),
    severity="critical",
    cwe="CWE-732",
    confidence="high",
    capabilities=("fs-write",),
    facts=(FileUse,),
    only={FileUse: ("delete", "delete-tree")},
    check=_check,
    examples={
        "python": "import shutil\nshutil.rmtree('/home')",
        "bash": "rm -rf --no-preserve-root /",
        "javascript": "require('fs').rmSync('/', {recursive: true})",
    },
    near_misses={
        "python": "import shutil\nshutil.rmtree('build')",
        "bash": "rm -rf build",
        "javascript": "require('fs').rmSync('build', {recursive: true})",
    },
    languages=("python", "bash", "javascript"),
)
