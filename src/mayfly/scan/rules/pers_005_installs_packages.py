"""MF-PERS-005."""

from __future__ import annotations

from mayfly.scan.facts import CallUse, CommandUse
from mayfly.scan.judge import shown
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]

_TOOLS = frozenset(
    {
        "pip",
        "pip3",
        "pipx",
        "uv",
        "conda",
        "mamba",
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
        "flatpak",
        "brew",
        "npm",
        "pnpm",
        "yarn",
        "gem",
        "cargo",
        "go",
        "luarocks",
        "cpan",
        "poetry",
    }
)


def _check(fact: CommandUse | CallUse, _scene: Scene) -> Hit | None:
    if isinstance(fact, CallUse):
        words = [text for value in fact.args for member in (value.elements or ()) for text in member.texts]
        return Hit("installs packages with pip") if "install" in words else None
    if fact.name in _TOOLS and set(fact.args) & {
        "install",
        "add",
        "i",
        "get",
        "-S",
        "-i",
        "localinstall",
        "-U",
        "upgrade",
    }:
        return Hit(f"installs packages with {fact.name}: {shown(' '.join(fact.args))}")
    return Hit("installs with easy_install") if fact.name == "easy_install" else None


RULE = Rule(
    id="MF-PERS-005",
    title="Installs packages while it runs",
    rationale=(
        "What is installed was not looked at, and a misspelt name is somebody's trap. Packages belong into the image."
    ),
    severity="medium",
    cwe="CWE-494",
    confidence="high",
    capabilities=("net", "proc"),
    facts=(CommandUse, CallUse),
    only={CallUse: ("pip.*",)},
    check=_check,
    examples={
        "python": "import subprocess\nsubprocess.run(['pip', 'install', 'x'])",
        "bash": "apt-get install -y nmap",
        "javascript": "require('child_process').execSync('npm install left-pad')",
    },
    near_misses={
        "python": "import subprocess\nsubprocess.run(['pip', '--version'])",
        "bash": "apt-cache search x",
        "javascript": "require('child_process').execSync('npm ls')",
    },
    languages=("python", "bash", "javascript"),
)
