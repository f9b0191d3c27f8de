"""The text of nodes and literals."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tree_sitter

__all__ = ["text_of", "unescape"]

_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u\{([0-9a-fA-F]{1,6})\}|u([0-9a-fA-F]{4})|([0-7]{1,3})|(.))", re.DOTALL)
_SIMPLE = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "v": "\v", "\n": ""}


def text_of(node: tree_sitter.Node) -> str:
    """The node's source text."""
    return (node.text or b"").decode("utf-8", "replace")


def unescape(text: str) -> str:
    """A literal's text without its escapes."""

    def one(match: re.Match[str]) -> str:
        code = match[1] or match[2] or match[3]
        if code:
            return chr(min(int(code, 16), 0x10FFFF))
        if match[4]:
            return chr(int(match[4], 8) & 255)
        return _SIMPLE.get(match[5], match[5])

    return _ESCAPE.sub(one, text) if "\\" in text else text
