"""Notebooks: their code cells as one Python program."""

from __future__ import annotations

import re

import msgspec

__all__ = ["cell_source", "notebook_source"]

_MAX_BYTES = 16 * 1024 * 1024
_SHELL_LINE = re.compile(r"^(\s*)(?:[A-Za-z_]\w*\s*=\s*)?!(.+)$")
_MAGIC_LINE = re.compile(r"^(\s*)%(\w+)\s*(.*)$")
_RUN_MAGICS = frozenset({"sx", "system", "run", "pip", "conda", "timeit", "time", "load"})


class _Cell(msgspec.Struct):
    cell_type: str
    source: str | list[str] = ""


class _Notebook(msgspec.Struct):
    cells: list[_Cell]


def notebook_source(data: bytes) -> bytes | None:
    """The code cells of a notebook's bytes as one program in UTF-8, or None when it is no notebook.

    `!command` becomes a call that runs it, `%%bash` cells too; other magics become comments. Lines are counted over
    the cells' code, one empty line between two cells.
    """
    if len(data) > _MAX_BYTES:
        return None
    try:
        notebook = msgspec.json.decode(data, type=_Notebook)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    cells = [_cell(cell) for cell in notebook.cells if cell.cell_type == "code"]
    return "\n\n".join(cells).encode("utf-8", "replace")


def _cell(cell: _Cell) -> str:
    return cell_source(cell.source if isinstance(cell.source, str) else "".join(cell.source))


def cell_source(text: str) -> str:
    """A cell's text with its magics as Python, for a scan; the text itself where it has none."""
    if match := re.match(r"^\s*%%(bash|sh|script[^\n]*|!)[^\n]*\n", text):
        return f"get_ipython().system({text[match.end() :]!r})"
    if re.match(r"^\s*%%(?:html|markdown|latex|svg|javascript|js|writefile)\b", text):
        return "\n".join("# " + line for line in text.splitlines())
    return "\n".join(_line(line) for line in text.splitlines())


def _line(line: str) -> str:
    if match := _SHELL_LINE.match(line):
        return f"{match[1]}get_ipython().system({match[2]!r})"
    if match := _MAGIC_LINE.match(line):
        if match[2] in _RUN_MAGICS:
            words = match[3] if match[2] in ("sx", "system") else f"{match[2]} {match[3]}"
            return f"{match[1]}get_ipython().system({words!r})"
        return f"{match[1]}pass  # {line.strip()}"
    return "# " + line if line.startswith("%%") else line
