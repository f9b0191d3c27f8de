"""What a `Value.ref` may be in Python: a function, a class or an instance of the program, an open file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ast

    from mayfly.scan.facts import Value

__all__ = ["ClassRef", "FileRef", "FunctionRef", "Scope"]

Scope = dict[str, "Value"]


@dataclass(eq=False, slots=True)
class FunctionRef:
    """A function or lambda, the scopes it sees, and the instance it is bound to."""

    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
    scopes: tuple[Scope, ...]
    defaults: tuple[Value, ...] = ()
    bound: Value | None = None


@dataclass(eq=False, slots=True)
class ClassRef:
    """A class of the program; one set of attributes stands for all its instances."""

    node: ast.ClassDef
    names: Scope = field(default_factory=dict)
    bases: tuple[Value, ...] = ()
    instance: bool = False


@dataclass(eq=False, slots=True)
class FileRef:
    """An open file."""

    path: Value
    writes: bool
