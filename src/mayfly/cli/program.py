"""Where `mayfly run` takes a program from: a file, a pipe, or the command line; read within bounds."""

from __future__ import annotations

import re
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mayfly.model import CODE_MAX_BYTES

if TYPE_CHECKING:
    from typing import BinaryIO

    from mayfly.model import Language

__all__ = ["Program", "read_program"]

_LANGUAGES: dict[str, Language] = {".py": "python", ".pyw": "python", ".sh": "bash", ".bash": "bash"}
_FILENAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_SHEBANG_CHARS = 256


@dataclass(frozen=True, slots=True)
class Program:
    """A program's text, its language, the name that tracebacks show, and whether it used up standard input."""

    code: str
    lang: Language
    filename: str | None
    from_stdin: bool


def read_program(source: str | None, code: str | None, lang: Language | None) -> Program:
    """Take `code`, or read the file `source` (`-` is standard input); click.UsageError in one sentence."""
    if code is not None:
        return Program(code, lang or _by_shebang(code) or "python", None, from_stdin=False)
    if source is None:
        raise click.UsageError("say which program to run: FILE, - for standard input, or -c CODE")
    if source == "-":
        text = _text("standard input", _bounded("standard input", sys.stdin.buffer))
        return Program(text, lang or _by_shebang(text) or "python", None, from_stdin=True)
    path = Path(source)
    text = _text(source, _content(path))
    found = lang or _LANGUAGES.get(path.suffix.lower()) or _by_shebang(text) or "python"
    name = path.name if _FILENAME.fullmatch(path.name) else None
    return Program(text, found, name, from_stdin=False)


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            size = path.stat().st_size
            if stat.S_ISREG(path.stat().st_mode) and size > CODE_MAX_BYTES:
                raise _too_large(str(path), f"{size:,} bytes")
            return _bounded(str(path), stream)
    except FileNotFoundError:
        raise click.UsageError(f"there is no file {path}") from None
    except IsADirectoryError:
        raise click.UsageError(f"{path} is a directory; give the file to run") from None
    except PermissionError:
        raise click.UsageError(f"{path} may not be read by you") from None
    except OSError as error:
        raise click.UsageError(f"cannot read {path}: {error.strerror or error}") from None
    except ValueError:
        raise click.UsageError("FILE must not contain a NUL character") from None


def _bounded(name: str, stream: BinaryIO) -> bytes:
    data = stream.read(CODE_MAX_BYTES + 1)
    if len(data) > CODE_MAX_BYTES:
        raise _too_large(name, "more")
    return data


def _too_large(name: str, found: str) -> click.UsageError:
    return click.UsageError(f"{name} has {found}; a program may have at most {CODE_MAX_BYTES // 1024} KiB")


def _text(name: str, data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise click.UsageError(
            f"{name} is not UTF-8 text: byte {error.start} is 0x{data[error.start]:02x}; programs must be"
        ) from None


def _by_shebang(text: str) -> Language | None:
    if not text.startswith("#!"):
        return None
    line = text[:_SHEBANG_CHARS].split("\n", 1)[0]
    if "python" in line:
        return "python"
    return "bash" if re.search(r"\b(ba|da)?sh\b", line) else None
