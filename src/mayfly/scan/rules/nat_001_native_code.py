"""MF-NAT-001."""

from __future__ import annotations

from mayfly.scan.facts import CallUse
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]

_EXECUTES = frozenset(
    {
        "os.memfd_create",
        "ctypes.windll.kernel32.VirtualAlloc",
        "ctypes.memmove",
        "ctypes.CFUNCTYPE()",
        "ctypes.CDLL().mprotect",
        "ctypes.CDLL().syscall",
        "ctypes.CDLL().ptrace",
        "ctypes.string_at",
        "ctypes.memset",
    }
)
_LOADS = frozenset(
    {
        "ctypes.CDLL",
        "ctypes.PyDLL",
        "ctypes.WinDLL",
        "ctypes.cdll.LoadLibrary",
        "ctypes.PyDLL.LoadLibrary",
        "sys.setdlopenflags",
    }
)
_PREFIXES = ("cffi.FFI().dlopen", "ctypes.windll.", "ctypes.pythonapi.", "ctypes.CDLL().")


def _check(fact: CallUse, _scene: Scene) -> Hit | None:
    if fact.name in _EXECUTES:
        return Hit(f"runs machine code from memory with {fact.name}", severity="high")
    for value in (*fact.args, *fact.kwargs.values()) if fact.kwargs else fact.args:
        if "PROT_EXEC" in value.origin:
            return Hit(f"runs machine code from memory with {fact.name}", severity="high")
    native = fact.name in _LOADS or fact.name.startswith(_PREFIXES)
    return Hit(f"calls native code with {fact.name}") if native else None


RULE = Rule(
    id="MF-NAT-001",
    title="Calls native code",
    rationale=("Below the language no rule holds: any library function, any system call, memory that is executed."),
    severity="medium",
    cwe="CWE-111",
    confidence="high",
    capabilities=("native",),
    facts=(CallUse,),
    check=_check,
    examples={
        "python": "import ctypes\nctypes.CDLL(None).system(b'id')",
    },
    near_misses={
        "python": "import math\nmath.sqrt(2)",
    },
    languages=("python",),
)
