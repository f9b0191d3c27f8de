"""MF-PERS-006."""

from __future__ import annotations

from mayfly.scan.facts import CallUse, CommandUse
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]

_TOOLS = frozenset(
    {
        "pip",
        "pip3",
        "conda",
        "apt",
        "apt-get",
        "aptitude",
        "dpkg",
        "yum",
        "dnf",
        "rpm",
        "apk",
        "pacman",
        "zypper",
        "snap",
        "npm",
        "gem",
        "brew",
    }
)


def _check(fact: CommandUse | CallUse, _scene: Scene) -> Hit | None:
    words = (
        set(fact.args)
        if isinstance(fact, CommandUse)
        else {text for value in fact.args for member in (value.elements or ()) for text in member.texts}
    )
    remove = words & {
        "uninstall",
        "remove",
        "purge",
        "autoremove",
        "erase",
        "-e",
        "-r",
        "--remove",
        "-R",
        "--purge",
        "del",
        "rm",
    }
    return Hit(f"removes packages with {fact.name}") if remove and "install" not in words else None


RULE = Rule(
    id="MF-PERS-006",
    title="Removes packages",
    rationale="Taking away what is installed switches protections off or breaks what others use.",
    severity="high",
    cwe="CWE-693",
    confidence="high",
    capabilities=("proc",),
    facts=(CommandUse, CallUse),
    only={CommandUse: _TOOLS, CallUse: ("pip.*",)},
    check=_check,
    examples={
        "python": "import subprocess\nsubprocess.run(['pip', 'uninstall', '-y', 'cryptography'])",
        "bash": "apt-get remove -y apparmor",
    },
    near_misses={
        "python": "import subprocess\nsubprocess.run(['pip', 'list'])",
        "bash": "apt list --installed",
    },
    languages=("python", "bash"),
)
