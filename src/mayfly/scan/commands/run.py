"""From a command line to what it does."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from mayfly.scan.commands.command import Command
from mayfly.scan.commands.files import FILES, READERS, read_files
from mayfly.scan.commands.machine import MACHINE
from mayfly.scan.commands.texts import TEXTS
from mayfly.scan.facts import UNKNOWN, Value
from mayfly.scan.values import join, taints_of, unknown

if TYPE_CHECKING:
    from collections.abc import Callable

    from mayfly.scan.recorder import Recorder


__all__ = ["run_command"]

_WRAPPERS = frozenset({
    "sudo", "doas", "env", "nohup", "nice", "ionice", "time", "timeout", "xargs", "exec", "command", "builtin",
    "stdbuf",
    "setsid", "watch", "busybox", "strace", "ltrace", "chrt", "taskset", "unbuffer", "parallel", "flock", "pkexec",
    "proxychains", "torsocks", "torify", "runuser", "catchsegv", "fakeroot", "caffeinate", "chronic", "ts",
})  # fmt: skip


_VALUE_FLAGS = {
    "sudo": "ugpCrt", "env": "uCS", "nice": "n", "ionice": "cnp", "timeout": "ks", "xargs": "IiLnPdEs", "exec": "a",
    "stdbuf": "ioe", "watch": "n", "strace": "opes", "taskset": "c", "flock": "wE", "runuser": "u", "doas": "u",
}  # fmt: skip


_FLAG = re.compile(r"^-{1,2}[A-Za-z]")


def run_command(rec: Recorder, argv: list[Value], stdin: Value = UNKNOWN, before: tuple[str, ...] = ()) -> Value:
    """Record what a command line does; the value is its output."""
    if not argv or not argv[0].texts:
        if argv and argv[0].taints:
            rec.code("command", argv[0])
        return unknown("output")
    out = [_run_one(rec, name, argv[1:], stdin, before) for name in argv[0].texts[:4]]
    return join(*out)


_TOOLS = (
    "rm",
    "sh",
    "cat",
    "bash",
    "dd",
    "nc",
    "curl",
    "wget",
    "chmod",
    "chown",
    "cp",
    "mv",
    "kill",
    "mkfs",
    "python3",
)


def _meant(pattern: str) -> str:
    """The well-known program that a pattern such as `/???/r?` means; nobody writes programs' names so."""
    paths = [f"{folder}/{tool}" for tool in _TOOLS for folder in ("/bin", "/usr/bin")]
    return next((path for path in paths if fnmatchcase(path, pattern)), pattern)


def _run_one(rec: Recorder, full: str, args: list[Value], stdin: Value, before: tuple[str, ...]) -> Value:
    if full.startswith("/") and len(full) <= 64 and ("?" in full or "*" in full):
        full = _meant(full)
    name = full.rstrip("/").rpartition("/")[2].removesuffix(".exe") or full
    call = Command(rec, name, args, stdin, before)
    rec.command(name, args, before)
    if full.startswith(("/tmp/", "/var/tmp/", "/dev/shm/", "./")):  # noqa: S108 - names of places, not used
        rec.command("run-file", [Value(consts=(full,))], before)
    if name in _WRAPPERS:
        return _unwrap(call)
    handler = _TABLE.get(re.sub(r"[\d.]+$", "", name)) or _TABLE.get(name)
    if handler is not None:
        return handler(call)
    if name in READERS:
        return read_files(call)
    return Value(taints=taints_of([stdin, *args]) | {"output"})


def _unwrap(call: Command) -> Value:
    """`sudo -u root env A=b CMD ...` runs CMD."""
    if call.name == "env" and not call.positional:
        call.rec.env(how="env")
        return unknown("env-all")
    skip = call.name in ("timeout", "flock", "chrt", "taskset")
    number = 0
    while number < len(call.args):
        text = call.texts[number]
        if _FLAG.match(text):
            takes = text[-1] in _VALUE_FLAGS.get(call.name, "") and len(text) == 2
            number += 2 if takes else 1
        elif re.match(r"^[A-Za-z_]\w*=", text):
            number += 1
        elif skip:
            skip = False
            number += 1
        else:
            break
    extra = [call.stdin] if call.name in ("xargs", "parallel") else []
    return run_command(call.rec, [*call.args[number:], *extra], call.stdin, call.before)


_TABLE: dict[str, Callable[[Command], Value]] = {**TEXTS, **FILES, **MACHINE}
