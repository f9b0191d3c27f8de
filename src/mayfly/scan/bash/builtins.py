"""Builtins that change what the walk knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mayfly.scan.facts import UNKNOWN, Value
from mayfly.scan.values import unknown

if TYPE_CHECKING:
    from collections.abc import Callable

    from mayfly.scan.bash.walk import BashWalk

__all__ = ["BUILTINS"]


def _read_names(walk: BashWalk, values: list[Value]) -> Value | None:
    """`read a b`: the names hold what standard input carries."""
    for value in values:
        for text in value.texts:
            if not text.startswith("-"):
                walk.names[text] = unknown(*(walk.stdin.taints or {"input"}))
    return UNKNOWN


def _source(walk: BashWalk, values: list[Value]) -> Value | None:
    if values and values[0].taints & {"net", "decoded"}:
        walk.rec.shell(values[0])
    for value in values[:1]:
        walk.rec.command("run-file", [value], walk.before)
    return None


def _trap(walk: BashWalk, values: list[Value]) -> Value | None:
    if len(values) < 2:
        return None
    walk.rec.shell(values[0])
    return UNKNOWN


def _change_directory(walk: BashWalk, values: list[Value]) -> Value | None:
    walk.rec.enter(values[0] if values else Value(consts=("~",)))
    return None


_COMMON = frozenset({
    "apt", "bash", "cat", "cd", "chmod", "cp", "curl", "date", "docker", "echo", "exit", "find", "git", "grep", "kill",
    "ls", "mkdir", "mv", "nano", "passwd", "pip", "ps", "pwd", "python", "python3", "rm", "sh", "ssh", "su", "sudo",
    "systemctl", "tar", "touch", "vim", "wget", "which", "whoami",
})  # fmt: skip


def _aliases(walk: BashWalk, values: list[Value]) -> Value | None:
    """`alias ls='...'`: what it stands for is judged where it is defined."""
    for value in values:
        for text in value.texts:
            name, _, command = text.partition("=")
            walk.rec.nested(command, "bash", deeper=False)
            if name in _COMMON and name not in command.split()[:2]:
                walk.rec.call("shadow-command", [value])
    return UNKNOWN


# None: the command line is recorded like any other as well.
BUILTINS: dict[str, Callable[[BashWalk, list[Value]], Value | None]] = {
    "alias": _aliases,
    "cd": _change_directory,
    "mapfile": _read_names,
    "pushd": _change_directory,
    "read": _read_names,
    "readarray": _read_names,
    "source": _source,
    ".": _source,
    "trap": _trap,
}
