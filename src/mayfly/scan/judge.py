"""What rules ask again and again: which of a fact's paths or hosts are of a kind, as the policy leaves them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mayfly.scan.hosts import classify_host, host_matches
from mayfly.scan.paths import classify, matches

if TYPE_CHECKING:
    from collections.abc import Container

    from mayfly.scan.facts import CommandUse, FileUse, NetUse, Value
    from mayfly.scan.rule import Scene

__all__ = ["DANGEROUS_NAMES", "host_of_kind", "known_text", "path_of_kind", "shown", "verbs"]

DANGEROUS_NAMES = frozenset({
    "__import__", "compile", "ctypes.CDLL", "eval", "exec", "os.execv", "os.execve", "os.kill", "os.popen", "os.remove",
    "os.spawnl", "os.system", "os.unlink", "pty.spawn", "shutil.rmtree", "socket.socket", "subprocess.Popen",
    "subprocess.call", "subprocess.check_call", "subprocess.check_output", "subprocess.getoutput", "subprocess.run",
})  # fmt: skip
"""Names that give power; nobody has to spell them in pieces."""


def path_of_kind(fact: FileUse, scene: Scene, kinds: Container[str]) -> str | None:
    """The first path of the fact that is of one of the kinds and that the policy does not allow by name."""
    # Twenty rules ask the same of one fact, which lives as long as the scene.
    if (known := scene.kinds.get(id(fact))) is None:
        known = scene.kinds[id(fact)] = [(classify(text), text) for text in fact.path.texts]
    for kind, text in known:
        if kind in kinds and not matches(text, scene.policy.paths.allow):
            return text
    return None


def host_of_kind(fact: NetUse, scene: Scene, kinds: Container[str]) -> str | None:
    """The first target of the fact whose host is of one of the kinds and that the policy does not allow by name."""
    if (known := scene.kinds.get(id(fact))) is None:
        known = scene.kinds[id(fact)] = [(classify_host(text), text) for text in fact.target.texts]
    for kind, text in known:
        if kind in kinds and not host_matches(text, scene.policy.hosts.allow):
            return text
    return None


def shown(text: str) -> str:
    """A text as it stands in a message: one line, at most 80 characters."""
    flat = " ".join(text.split())
    return flat if len(flat) <= 80 else flat[:77] + "..."


def verbs(fact: CommandUse) -> set[str]:
    """The words of a command line that are no options."""
    return {arg for arg in fact.args if arg and not arg.startswith("-")}


def known_text(value: Value) -> str:
    """The first known text of a value, or ""."""
    return next(iter(value.texts), "")
