r"""Mayfly runs code that a language model wrote, in a Firecracker microVM made for that one run.

    >>> from mayfly import run
    >>> run("print(6 * 7)").stdout
    '42\n'
    >>> from mayfly import Sandbox
    >>> with Sandbox() as sandbox:
    ...     _ = sandbox.run_code("x = 6 * 7")
    ...     sandbox.run_code("x").text
    '42'

The names below are loaded when they are first used: importing `mayfly` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mayfly.client import AsyncRunner, AsyncSandbox, CodeExecution, Result, Runner, Sandbox, arun, run
    from mayfly.errors import (
        AuthError,
        CapacityError,
        ConfigError,
        DeniedError,
        GuestError,
        HostError,
        InvalidRequestError,
        MayflyError,
        NodeError,
        NotFoundError,
        SetupError,
        VmmError,
    )
    from mayfly.model import Execution, Finding, Limits, Verdict

__all__ = [
    "AsyncRunner",
    "AsyncSandbox",
    "AuthError",
    "CapacityError",
    "CodeExecution",
    "ConfigError",
    "DeniedError",
    "Execution",
    "Finding",
    "GuestError",
    "HostError",
    "InvalidRequestError",
    "Limits",
    "MayflyError",
    "NodeError",
    "NotFoundError",
    "Result",
    "Runner",
    "Sandbox",
    "SetupError",
    "Verdict",
    "VmmError",
    "__version__",
    "arun",
    "run",
]

__version__ = "0.1.0"

_HOMES = {
    "mayfly.client": (
        "AsyncRunner",
        "AsyncSandbox",
        "CodeExecution",
        "Result",
        "Runner",
        "Sandbox",
        "arun",
        "run",
    ),
    "mayfly.model": ("Execution", "Finding", "Limits", "Verdict"),
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    home = next((module for module, names in _HOMES.items() if name in names), "mayfly.errors")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
