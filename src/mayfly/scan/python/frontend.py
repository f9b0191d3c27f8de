"""Parses Python from bytes and yields its facts."""

from __future__ import annotations

import ast
import sys
import unicodedata
import warnings
from typing import TYPE_CHECKING

from mayfly.scan.facts import Oddity
from mayfly.scan.python.relevance import relevant
from mayfly.scan.python.walk import Walk
from mayfly.scan.recorder import Recorder
from mayfly.scan.source import Program, Refusal

if TYPE_CHECKING:
    from mayfly.scan.facts import Fact
    from mayfly.scan.manifest import Manifest

__all__ = ["parse_python", "python_facts"]


def python_facts(program: Program, manifest: Manifest | None, keep: list[object] | None = None) -> list[Fact] | Refusal:
    """The facts of a Python program, or why it cannot be parsed. The tree is put into `keep`."""
    tree = parse_python(program, manifest)
    if isinstance(tree, Refusal):
        return tree
    if keep is not None:
        keep.append(tree)
    rec = Recorder()
    statements, imports = relevant(tree, program.text)
    Walk(rec, program.text).program(statements)
    return [*rec.facts, *imports, *_compat_letters(tree, program)]


def parse_python(program: Program, manifest: Manifest | None) -> ast.Module | Refusal:
    """The tree of a program, or a refusal with Python's own message, line, column and the line's text."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(program.data, filename="<program>")
    except SyntaxError as error:
        return _syntax_refusal(error, program, manifest)
    except (MemoryError, RecursionError, ValueError, OverflowError, SystemError) as error:
        return Refusal("limit", f"the program is too deep or too large to parse ({type(error).__name__})")


def _syntax_refusal(error: SyntaxError, program: Program, manifest: Manifest | None) -> Refusal:
    lines = program.text.splitlines()
    number = error.lineno or 0
    text = lines[number - 1].strip()[:120] if 0 < number <= len(lines) else ""
    message = f"{type(error).__name__}: {error.msg}" + (f", in: {text}" if text else "")
    guest = _major_minor(manifest.python) if manifest else None
    if guest and guest > sys.version_info[:2]:
        own = f"{sys.version_info[0]}.{sys.version_info[1]}"
        message += f" (read with the grammar of Python {own}; the image has {guest[0]}.{guest[1]})"
    return Refusal("syntax", message, number, error.offset or 0)


def _major_minor(version: str) -> tuple[int, int] | None:
    parts = version.split(".")
    if len(parts) >= 2 and parts[0].isdecimal() and parts[1].isdecimal():
        return int(parts[0][:3]), int(parts[1][:3])
    return None


def _compat_letters(tree: ast.Module, program: Program) -> list[Fact]:
    """Names written in letters that Python folds to plain ones (mathematical bold `exec` is `exec`)."""
    if program.text.isascii() or unicodedata.is_normalized("NFKC", program.text):
        return []
    lines = program.data.splitlines()
    found: list[Fact] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            start, name = node.col_offset, node.id
        elif isinstance(node, ast.Attribute) and node.end_col_offset is not None and node.end_lineno == node.lineno:
            written = lines[node.lineno - 1][node.col_offset : node.end_col_offset].decode("utf-8", "replace")
            name = node.attr
            if not written.endswith(name) and unicodedata.normalize("NFKC", written).endswith(name):
                found.append(Oddity(kind="compat-letters", text=name, line=node.lineno, column=node.col_offset + 1))
            continue
        else:
            continue
        raw = lines[node.lineno - 1][start : node.end_col_offset].decode("utf-8", "replace")
        if name.isascii() and raw != name:
            found.append(Oddity(kind="compat-letters", text=name, line=node.lineno, column=start + 1))
    return found
