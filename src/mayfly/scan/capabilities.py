"""What a program seems to need, as tags: the machine is narrowed to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mayfly.scan.facts import (
    AllocUse,
    CallUse,
    CodeRun,
    CommandUse,
    EnvUse,
    FileUse,
    ImportUse,
    KillUse,
    LoadUse,
    NetUse,
    ProcUse,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mayfly.scan.facts import Fact, ScanLanguage

__all__ = ["capabilities_of"]

_OF_FACT: dict[type, str] = {
    AllocUse: "memory",
    CodeRun: "dynamic-code",
    EnvUse: "env",
    KillUse: "signal",
    LoadUse: "deserialise",
    NetUse: "net",
    ProcUse: "proc",
}
_OF_MODULE = {
    **dict.fromkeys(
        ("socket", "ssl", "requests", "httpx", "aiohttp", "urllib3", "ftplib", "smtplib", "telnetlib",
        "poplib", "imaplib",
         "paramiko", "websockets", "websocket", "http", "socketserver", "xmlrpc", "scapy", "boto3", "selenium", "flask",
         "django", "fastapi", "uvicorn", "wget", "pycurl", "dns", "tweepy", "openai"),
        "net",
    ),
    **dict.fromkeys(("subprocess", "pexpect", "sh", "pty"), "proc"),
    **dict.fromkeys(("threading", "multiprocessing", "concurrent", "joblib", "dask", "ray"), "threads"),
    **dict.fromkeys(("ctypes", "cffi"), "native"),
    **dict.fromkeys(("tensorflow", "torch", "jax", "pyspark", "transformers"), "memory"),
    **dict.fromkeys(("tempfile", "sqlite3", "shelve", "dbm"), "fs-write"),
}  # fmt: skip
_SHELL_BUILTINS = frozenset({
    "echo", "printf", "test", "[", "true", "false", ":", "cd", "pwd", "read", "set", "export", "local", "shift", "exit",
    "return", "let", "declare", "unset", "eval", "source", ".", "trap", "wait", "break", "continue",
})  # fmt: skip


def capabilities_of(facts: Iterable[Fact], lang: ScanLanguage) -> tuple[str, ...]:
    """The tags, sorted: `net`, `net-listen`, `proc`, `fs-read`, `fs-write`, `threads`, `memory`, `native`, ..."""
    found: set[str] = set()
    for fact in facts:
        kind = fact.__class__
        if tag := _OF_FACT.get(kind):
            found.add(tag)
        if kind in _LOOKED_INTO:
            found.add(_by_content(fact, lang))
    return tuple(sorted(found - {""}))


_LOOKED_INTO = frozenset({FileUse, NetUse, ImportUse, CommandUse, CallUse})


def _by_content(fact: Fact, lang: ScanLanguage) -> str:
    """The tag that only a look into the fact tells, or ""."""
    if isinstance(fact, FileUse):
        return "fs-read" if fact.op in ("read", "list") else "fs-write"
    if isinstance(fact, ImportUse):
        return "net" if fact.module.startswith("urllib.request") else _OF_MODULE.get(fact.top, "")
    if isinstance(fact, CallUse):
        return "native" if fact.name.startswith(("ctypes.", "cffi.")) else "proc" if fact.name == "fork" else ""
    if isinstance(fact, CommandUse):
        return "proc" if lang != "bash" or fact.name not in _SHELL_BUILTINS else ""
    return "net-listen" if isinstance(fact, NetUse) and fact.op == "listen" else ""
