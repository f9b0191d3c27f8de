"""Bytes first: what is refused before any parser sees it, and what is odd about the text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mayfly.model import CODE_MAX_BYTES
from mayfly.scan.facts import Oddity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mayfly.scan.facts import ScanLanguage

__all__ = ["Program", "Refusal", "lines_of", "oddities", "read_program"]

_BOM = b"\xef\xbb\xbf"
_COOKIE = re.compile(rb"^[ \t\f]*#.*?coding[:=][ \t]*([-\w.]+)")
_BLANK_OR_COMMENT = re.compile(rb"^[ \t\f]*(?:#|$)")
_LINE_END = re.compile(rb"\r\n|\r|\n")
_UTF8_NAMES = frozenset({b"utf-8", b"utf8", b"utf-8-sig"})
# Written as escapes: a source file that holds these characters would show what it is about.
_BIDI = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_INVISIBLE = re.compile("[\u200b\u2060\ufeff\U000e0000-\U000e007f]")
_BARE_CR = re.compile("\r(?!\n)")
_MAX_ODDITIES = 20


@dataclass(frozen=True, slots=True)
class Program:
    """A program that passed the checks of its bytes. `data` has no byte-order mark; `text` is `data` decoded."""

    lang: ScanLanguage
    data: bytes
    text: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a program cannot be looked at. `kind` is stable: `size`, `nul`, `encoding`, `cookie`, `syntax`, `limit`."""

    kind: str
    message: str
    line: int = 0
    column: int = 0


def read_program(source: bytes, lang: ScanLanguage) -> Program | Refusal:
    """The program in `source`, or why it is refused: over-size, NUL, not UTF-8, or another declared encoding."""
    if len(source) > CODE_MAX_BYTES:
        return Refusal("size", f"the program has more than {CODE_MAX_BYTES} bytes, the most that are taken")
    data = source.removeprefix(_BOM)
    if (nul := data.find(b"\0")) >= 0:
        line, column = _place_in_bytes(data, nul)
        return Refusal("nul", "the program holds a NUL byte", line, column)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line, column = _place_in_bytes(data, error.start)
        return Refusal("encoding", f"the program is not UTF-8: byte 0x{data[error.start]:02x}", line, column)
    if lang == "python" and (cookie := _foreign_cookie(data)):
        return Refusal("cookie", f"the program declares the encoding {cookie}; only utf-8 is taken", 1, 1)
    return Program(lang, data, text)


def _place_in_bytes(data: bytes, offset: int) -> tuple[int, int]:
    before = data[:offset]
    return before.count(b"\n") + 1, offset - before.rfind(b"\n")


def _foreign_cookie(data: bytes) -> str | None:
    """The declared encoding when it is not UTF-8, by the rules of PEP 263, where a carriage return ends a line."""
    start = data[:4096]
    if b"coding" not in start:
        return None
    lines = _LINE_END.split(start, maxsplit=2)[:2]
    for number, line in enumerate(lines):
        if match := _COOKIE.match(line):
            name = match[1].lower().replace(b"_", b"-")
            return None if name in _UTF8_NAMES else match[1].decode("ascii", "replace")
        if number == 0 and not _BLANK_OR_COMMENT.match(line):
            return None
    return None


def lines_of(data: bytes, lang: ScanLanguage) -> list[bytes]:
    """The lines that findings count: in Python a bare carriage return ends one, elsewhere it does not."""
    data = data.removeprefix(_BOM)
    return _LINE_END.split(data) if lang == "python" else data.split(b"\n")


def oddities(program: Program) -> Iterator[Oddity]:
    """Characters that make a program look other than it is; at most 20 of them."""
    text = program.text
    found = 0
    searches = [("bare-cr", _BARE_CR)] if "\r" in text else []
    if not text.isascii():
        searches += [("bidi", _BIDI), ("invisible", _INVISIBLE)]
    for kind, pattern in searches:
        for match in pattern.finditer(text):
            before = lines_of(text[: match.start()].encode(), program.lang)
            line, column = len(before), len(before[-1]) + 1
            yield Oddity(kind=kind, text=f"U+{ord(match[0]):04X}", line=line, column=column)
            found += 1
            if found >= _MAX_ODDITIES:
                return
