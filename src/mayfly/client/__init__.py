"""What users import: `run`, `Runner`, `Sandbox` and their asynchronous faces, talking HTTP to a node.

Loaded when first used: the command line needs the core only, and is to start fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mayfly.client.code import CodeOptions
    from mayfly.client.commands import AsyncCommand, CommandOptions
    from mayfly.client.faces import Sandbox
    from mayfly.client.ports import Forward
    from mayfly.client.processes import Command, Terminal
    from mayfly.client.results import CodeExecution, Logs, Result
    from mayfly.client.runner import AsyncRunner, Runner, RunOptions, arun, run
    from mayfly.client.sandbox import AsyncSandbox, SandboxOptions
    from mayfly.client.terminal import AsyncTerminal

__all__ = [
    "AsyncCommand",
    "AsyncRunner",
    "AsyncSandbox",
    "AsyncTerminal",
    "CodeExecution",
    "CodeOptions",
    "Command",
    "CommandOptions",
    "Forward",
    "Logs",
    "Result",
    "RunOptions",
    "Runner",
    "Sandbox",
    "SandboxOptions",
    "Terminal",
    "arun",
    "run",
]

_HOMES = {
    "code": ("CodeOptions",),
    "commands": ("AsyncCommand", "CommandOptions"),
    "faces": ("Sandbox",),
    "ports": ("Forward",),
    "processes": ("Command", "Terminal"),
    "results": ("CodeExecution", "Logs", "Result"),
    "runner": ("AsyncRunner", "RunOptions", "Runner", "arun", "run"),
    "sandbox": ("AsyncSandbox", "SandboxOptions"),
    "terminal": ("AsyncTerminal",),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            from importlib import import_module

            return getattr(import_module(f"mayfly.client.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
