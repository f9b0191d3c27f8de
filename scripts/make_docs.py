#!/usr/bin/env python3
"""Writes the generated parts of docs/ anew: what stands between `<!-- generated: NAME -->` and `<!-- end -->`.

`make_docs.py` writes, `make_docs.py --check` says what is out of date and ends with 1.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec
from click.testing import CliRunner

from mayfly import config, errors, model
from mayfly.cli import COMMANDS, cli

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[1]
WIDTH = 100
_BLOCK = re.compile(r"(<!-- generated: (?P<name>[a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def command_reference() -> str:
    """What every command's `--help` prints, in the order of `mayfly --help`."""
    top = click.Context(cli)
    parts = [_help([])]
    for name in COMMANDS:
        try:
            command = cli.get_command(top, name)
        except ImportError:
            continue
        if command is not None:
            parts.append(_help([name]))
        if isinstance(command, click.Group):
            parts += [_help([name, child]) for child in command.list_commands(top)]
    return "\n".join(parts)


def _help(words: list[str]) -> str:
    shown = CliRunner().invoke(
        cli, [*words, "--help"], prog_name="mayfly", terminal_width=WIDTH, max_content_width=WIDTH, color=False
    )
    return f"## {' '.join(['mayfly', *words])}\n\n```text\n{shown.output.rstrip()}\n```\n"


def error_tree() -> str:
    """The tree as the module draws it."""
    drawn = inspect.cleandoc(errors.__doc__ or "").partition("::\n\n")[2]
    return "```text\n" + "\n".join(line.removeprefix("    ") for line in drawn.splitlines()) + "\n```\n"


def error_table() -> str:
    """One row an error: code, class, phase, whether a retry may help, meaning."""
    rows = ["| code | class | phase | retryable | meaning |", "|---|---|---|---|---|"]
    kinds = [getattr(errors, name) for name in errors.__all__ if name.endswith("Error")]
    for kind in sorted(kinds, key=lambda kind: str(kind.code)):
        meaning = inspect.cleandoc(kind.__doc__ or "").split("\n\n")[0].replace("\n", " ")
        if kind is errors.MayflyError:
            meaning = "Something unexpected in Mayfly itself; every error is of this class."
        phase, again = kind.default_phase or "", "yes" if kind.default_retryable else "no"
        rows.append(f"| `{kind.code}` | `{kind.__name__}` | {phase} | {again} | {meaning} |")
    return "\n".join(rows) + "\n"


def settings_table() -> str:
    """Every setting of `mayfly.toml` with its environment variable, range, default and meaning."""
    return _fields(config.Config, config, "MAYFLY_", "")


def limits_table() -> str:
    """Every limit, as settings and as options of a run."""
    return _fields(model.Limits, model, "MAYFLY_LIMITS_", "limits.")


def _fields(struct: Any, module: Any, variable: str, prefix: str) -> str:
    comments = _comments(module, struct.__name__)
    rows = ["| key | environment | value | default | meaning |", "|---|---|---|---|---|"]
    for field in msgspec.inspect.type_info(struct).fields:  # type: ignore[attr-defined]
        if isinstance(field.type, msgspec.inspect.StructType):
            continue
        default = "none" if field.default is None else f"`{field.default}`"
        name, value = field.name, _value(field.type)
        meaning = comments.get(name) or MEANINGS[name]
        rows.append(f"| `{prefix}{name}` | `{variable}{name.upper()}` | {value} | {default} | {meaning} |")
    return "\n".join(rows) + "\n"


MEANINGS = {
    "timeout_s": "Wall-clock time of the program, in seconds; its end is status `timeout`.",
    "mem_mib": "Memory of the microVM, in MiB. The program has this less 40 MiB; more is status `oom`.",
    "vcpus": "Processors of the microVM.",
    "cpu_s": "CPU time of the program and all it starts, in seconds; its end is status `cpu_limit`.",
    "pids": "Processes and threads that the program may have at once.",
    "uid_count": "How many of those user ids there are.",
}
"""Meaning of the settings whose name says it all in the source."""


def _comments(module: Any, name: str) -> dict[str, str]:
    """The text below each field of a struct in its source."""
    tree = ast.parse(inspect.getsource(module))
    body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    found = {}
    for field, text in pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(field.target, ast.Name):
            found[field.target.id] = inspect.cleandoc(ast.literal_eval(text.value)).replace("\n", " ")
    return found


def _value(kind: Any) -> str:
    if isinstance(kind, msgspec.inspect.UnionType):
        return next(_value(part) for part in kind.types if not isinstance(part, msgspec.inspect.NoneType))
    if isinstance(kind, (msgspec.inspect.IntType, msgspec.inspect.FloatType)):
        noun = "whole number" if isinstance(kind, msgspec.inspect.IntType) else "number"
        return f"{noun}, {kind.ge:,} to {kind.le:,}"
    if isinstance(kind, (msgspec.inspect.ListType, msgspec.inspect.VarTupleType)):
        return "list of texts; in the environment separated by commas"
    return "text"


REFERENCE: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    (
        "Programs",
        (("mayfly.client.runner", "run"), ("mayfly.client.runner", "Runner"), ("mayfly.client.runner", "RunOptions")),
    ),
    (
        "Sandboxes",
        (
            ("mayfly.client.faces", "Sandbox"),
            ("mayfly.client.sandbox", "SandboxOptions"),
            ("mayfly.client.code", "CodeOptions"),
            ("mayfly.client.ports", "Forward"),
        ),
    ),
    (
        "Results",
        (
            ("mayfly.client.results", "CodeExecution"),
            ("mayfly.client.results", "Result"),
            ("mayfly.client.results", "Logs"),
        ),
    ),
    ("Files", (("mayfly.client.faces", "Files"),)),
    (
        "Commands",
        (
            ("mayfly.client.processes", "Commands"),
            ("mayfly.client.processes", "Command"),
            ("mayfly.client.commands", "CommandOptions"),
        ),
    ),
    ("Terminals", (("mayfly.client.processes", "Pty"), ("mayfly.client.processes", "Terminal"))),
    (
        "Values",
        tuple(
            ("mayfly.sandbox_model", name)
            for name in (
                "SandboxInfo", "ContextInfo", "CodeError", "CommandResult", "CommandInfo", "FileInfo", "FileEvent",
                "Metrics", "LogEntry",
            )
        ),
    ),
)  # fmt: skip
"""What the reference tells, by heading: module and name."""


def python_reference() -> str:
    """Every class that users meet, with its signatures and the text that stands with them in the source."""
    parts = []
    for heading, entries in REFERENCE:
        parts.append(f"## {heading}\n")
        for module, name in entries:
            thing = getattr(importlib.import_module(module), name)
            parts += [f"### {name}\n", *(_function(thing) if inspect.isfunction(thing) else _class(thing))]
    return "\n".join(parts)


def _prose(thing: Any) -> str:
    return inspect.cleandoc(thing.__doc__ or "") + "\n"


def _function(function: Any) -> list[str]:
    return [f"```python\n{_signature(function)}\n```\n", _prose(function)]


def _signature(function: Any, owner: str = "") -> str:
    shown = re.sub(r"(: |-> )'([^']*)'", r"\1\2", str(inspect.signature(function)))
    shown = re.sub(r"\((self|cls)(, )?", "(", shown, count=1)
    line = f"{owner}{function.__name__}{shown}"
    if len(line) <= WIDTH:
        return line
    inner, _, tail = line.rpartition(")")
    start, _, given = inner.partition("(")
    return f"{start}(\n    {_wrapped(given)}\n){tail}"


def _wrapped(given: str) -> str:
    """Parameters, one a line; commas inside of brackets belong to their types."""
    depth, parts = 0, [""]
    for char in given:
        depth += {"[": 1, "(": 1, "]": -1, ")": -1}.get(char, 0)
        if char == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    return ",\n    ".join(part.strip() for part in parts)


def _class(kind: Any) -> list[str]:
    tree = ast.parse(inspect.getsource(kind)).body[0]
    lines = [_prose(kind)]
    if fields := _documented_fields(tree):
        lines.append("\n".join(fields) + "\n")
    for name, member in vars(kind).items():
        if name.startswith("_"):
            continue
        if isinstance(member, property):
            lines.append(f"#### `{kind.__name__}.{name}`\n\n{_prose(member)}")
        elif isinstance(member, (classmethod, staticmethod)) or inspect.isfunction(member):
            function: Any = getattr(member, "__func__", member)
            function = inspect.unwrap(function)
            lines += [f"#### `{kind.__name__}.{name}`\n", *_function(function)]
    return lines


def _documented_fields(tree: Any) -> list[str]:
    """Fields of a struct or of typed options, and attributes that `_take` sets, with the text below each."""
    found = []
    body = [*tree.body]
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name in {"__init__", "_take"}:
            body += node.body
    for field, text in pairwise([*body, ast.Pass()]):
        target = field.target if isinstance(field, ast.AnnAssign) else None
        if isinstance(field, ast.Assign) and isinstance(field.targets[0], ast.Attribute):
            target = field.targets[0]
        name = getattr(target, "id", getattr(target, "attr", "_"))
        if name.startswith("_"):
            continue
        kind = f": `{ast.unparse(field.annotation)}`" if isinstance(field, ast.AnnAssign) else ""
        told = ""
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            told = ". " + inspect.cleandoc(str(text.value.value)).replace("\n", " ")
        if kind or told:
            found.append(f"- `{name}`{kind}{told}")
    return found


PARTS: dict[str, Callable[[], str]] = {
    "commands": command_reference,
    "error-tree": error_tree,
    "error-table": error_table,
    "settings": settings_table,
    "limits": limits_table,
    "python-reference": python_reference,
}


def renew(text: str) -> str:
    """`text` with every generated part made anew."""
    return _BLOCK.sub(lambda found: f"{found[1]}\n{PARTS[found['name']]()}\n{found[3]}", text)


def pages() -> list[Path]:
    """The pages that have generated parts."""
    return [page for page in sorted((ROOT / "docs").glob("*.md")) if _BLOCK.search(page.read_text())]


def main() -> int:
    """Write, or check."""
    stale = [page for page in pages() if renew(page.read_text()) != page.read_text()]
    if "--check" in sys.argv:
        for page in stale:
            sys.stderr.write(f"{page.relative_to(ROOT)} is out of date: run scripts/make_docs.py\n")
        return 1 if stale else 0
    for page in stale:
        page.write_text(renew(page.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
