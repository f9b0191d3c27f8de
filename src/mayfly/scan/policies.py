"""The built-in policies."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from mayfly.scan.policy import Names, Policy

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["BUILTIN"]

_DEFAULT = Policy(name="default")

_STRICT = Policy(
    name="strict",
    review="deny",
    severity={"MF-DYN-003": "high", "MF-DYN-004": "high", "MF-DYN-005": "high"},
    # Computation and text only: no files by name, no processes, no network, no native code, no dynamic code.
    imports=Names(
        only=True,
        allow=(
            "__future__", "abc", "array", "base64", "binascii", "bisect", "calendar", "cmath", "collections", "copy",
            "csv", "dataclasses", "datetime", "decimal", "difflib", "enum", "fractions", "functools", "graphlib",
            "hashlib", "heapq", "hmac", "html", "io", "itertools", "json", "keyword", "locale", "math", "matplotlib",
            "networkx", "numbers", "numpy", "operator", "pandas", "pprint", "queue", "random", "re", "reprlib",
            "scipy", "secrets", "seaborn", "sklearn", "statistics", "string", "struct", "sympy", "textwrap", "time",
            "timeit", "types", "typing", "unicodedata", "unittest", "uuid", "warnings", "weakref", "zlib", "zoneinfo",
        ),
    ),
)  # fmt: skip

_RESEARCH = Policy(name="research", enforce=False, review="allow")

BUILTIN: Mapping[str, Policy] = MappingProxyType({p.name: p for p in (_DEFAULT, _STRICT, _RESEARCH)})
"""By name."""
