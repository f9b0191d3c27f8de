"""MF-SRC-004."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mayfly.scan.facts import Oddity
from mayfly.scan.rule import Hit, Rule, Scene

if TYPE_CHECKING:
    from mayfly.model import Severity

__all__ = ["RULE"]

_TELLING = frozenset({
    "__builtins__", "__class__", "__dict__", "__globals__", "__import__", "__subclasses__", "breakpoint", "compile",
    "ctypes", "delattr", "eval", "exec", "getattr", "globals", "importlib", "input", "locals", "open", "os", "popen",
    "remove", "setattr", "socket", "subprocess", "sys", "system", "unlink", "vars",
})  # fmt: skip


def _check(fact: Oddity, _scene: Scene) -> Hit | None:
    if fact.kind != "compat-letters":
        return None
    severity: Severity = "high" if fact.text in _TELLING else "medium"
    return Hit(f"a name in look-alike letters is read as {fact.text!r}", severity=severity)


RULE = Rule(
    id="MF-SRC-004",
    title="A name in look-alike letters",
    rationale=(
        "Python folds names by NFKC, so `exec` in mathematical letters is `exec`. Nobody writes so by accident, and "
        "with a name that gives power it is meant to pass a filter."
    ),
    severity="medium",
    cwe="CWE-1007",
    facts=(Oddity,),
    check=_check,
    examples={"python": "\N{MATHEMATICAL BOLD SMALL E}xec('1')"},
    near_misses={"python": "größe = 1\nprint(größe)"},
    languages=("python",),
)
