"""The package as source: parsed once, read by every test of this folder."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
_LEFT_OUT = {
    ".git",
    ".venv",
    ".hypothesis",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    "__pycache__",
    "build",
    "dist",
}


@dataclass(frozen=True)
class Import:
    """`source` imports the module `target`, and of it `name` (None: the module itself)."""

    source: str
    target: str
    name: str | None
    line: int
    for_types: bool
    """True under `if TYPE_CHECKING`."""

    def __str__(self) -> str:
        return f"{self.source}:{self.line} imports {self.target}" + (f".{self.name}" if self.name else "")


@dataclass(frozen=True)
class Module:
    """One file of the package: its dotted name, its text and its syntax tree."""

    name: str
    path: Path
    text: str
    tree: ast.Module

    @property
    def package(self) -> str:
        """`mayfly.host.locks` is of `host`; `mayfly.errors` of `errors`; `mayfly` itself of the empty name."""
        return [*self.name.split("."), ""][1]

    @property
    def where(self) -> str:
        """Its path as a person types it."""
        return str(self.path.relative_to(ROOT))

    def imports(self) -> Iterator[Import]:
        """Every import in the file, also those inside functions and for type checkers only."""
        types = [
            node for node in self.tree.body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        ]
        for node in ast.walk(self.tree):
            if not isinstance(node, (ast.Import, ast.ImportFrom)):
                continue
            for_types = any(block.lineno < node.lineno <= (block.end_lineno or 0) for block in types)
            for alias in node.names:
                if isinstance(node, ast.Import):
                    yield Import(self.name, alias.name, None, node.lineno, for_types)
                else:
                    yield Import(self.name, node.module or "", alias.name, node.lineno, for_types)


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def modules() -> list[Module]:
    found = []
    for path in sorted((ROOT / "src" / "mayfly").rglob("*.py")):
        name = ".".join(path.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__")
        text = path.read_text()
        found.append(Module(name, path, text, ast.parse(text)))
    return found


@pytest.fixture(scope="session")
def files() -> list[Path]:
    """Every file of the repository that people wrote."""
    return [
        path
        for path in sorted(ROOT.rglob("*"))
        if path.is_file()
        and not _LEFT_OUT & set(path.relative_to(ROOT).parts)
        and not any(part.endswith(".egg-info") for part in path.parts)
    ]
