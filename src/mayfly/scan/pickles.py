"""What a pickle would call, read from its opcodes without running any."""

from __future__ import annotations

import contextlib
import pickletools
from itertools import islice

__all__ = ["dangerous_global"]

_MODULES = frozenset({
    "os", "posix", "nt", "subprocess", "builtins", "__builtin__", "sys", "socket", "pty", "commands", "shutil",
    "importlib", "runpy", "ctypes", "asyncio", "webbrowser", "operator", "functools", "timeit", "code", "pip",
})  # fmt: skip
_HARMLESS = frozenset({
    "builtins set", "builtins frozenset", "builtins list", "builtins dict", "builtins int", "builtins object",
    "builtins bytearray", "builtins complex", "builtins range", "builtins slice", "functools partial",
})  # fmt: skip
_MAX_OPCODES = 20_000


def dangerous_global(data: bytes) -> str | None:
    """What of the system loading the pickle would reach first, as `module.name`; None when nothing is seen."""
    strings: list[str] = []
    # Whatever stands after the first malformed byte is never run.
    with contextlib.suppress(Exception):
        for opcode, argument, _ in islice(pickletools.genops(data), _MAX_OPCODES):
            if isinstance(argument, str):
                strings.append(argument)
            name = ""
            if opcode.name in ("GLOBAL", "INST") and isinstance(argument, str):
                name = argument
            elif opcode.name == "STACK_GLOBAL" and len(strings) >= 2:
                name = f"{strings[-2]} {strings[-1]}"
            module = name.partition(" ")[0]
            if module.partition(".")[0] in _MODULES and name not in _HARMLESS:
                return name.replace(" ", ".")
    return None
