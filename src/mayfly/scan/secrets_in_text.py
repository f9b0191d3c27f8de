"""Secrets in the source, found by their form."""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING

from mayfly.scan.facts import TextSeen

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["secrets_in_text"]

_Form = tuple[str, re.Pattern[str]]
# By the sign that a text must hold for a search to be worth its time: what it may be, and its form. A sign that begins
# with a plain letter is found fast, one for several forms spares searches.
_FORMS: tuple[tuple[str | re.Pattern[str], tuple[_Form, ...]], ...] = (
    (
        re.compile("A(?:KIA|SIA|Iza)"),
        (
            ("an AWS access key", re.compile(r"\b(?:AKIA|ASIA)[A-Z2-7]{16}\b")),
            ("a Google API key", re.compile(r"\bAIza[\w-]{35}\b")),
        ),
    ),
    ("PRIVATE KEY", (("a private key", re.compile(r"-----BEGIN (?:RSA |EC |DSA |OPENSSH |PGP )?PRIVATE KEY")),)),
    (
        re.compile("g(?:h[pousr]_|ithub_pat_|lpat-)"),
        (
            (
                "a GitHub token",
                re.compile(r"\b(?:ghp|gho|ghu|ghs|ghr)_[A-Za-z0-9]{36}\b|\bgithub_pat_\w{50,}"),
            ),
            ("a GitLab token", re.compile(r"\bglpat-[\w-]{20,}")),
        ),
    ),
    ("xox", (("a Slack token", re.compile(r"\bxox[abprs]-[0-9A-Za-z-]{20,}")),)),
    ("k_live_", (("a Stripe key", re.compile(r"\b[rs]k_live_[0-9A-Za-z]{20,}")),)),
    ("sk-", (("a model provider's key", re.compile(r"\bsk-(?:proj-|ant-)?[A-Za-z0-9_-]{32,}")),)),
    ("pypi-AgEI", (("a PyPI token", re.compile(r"\bpypi-AgEI[\w-]{50,}")),)),
    (":AA", (("a bot token", re.compile(r"\b\d{8,10}:AA[\w-]{33}\b")),)),
)
_GIVEN = r"\w{0,30}[\"']?\s?[:=]\s?[\"'](?=[^\"']{0,100}\d)[^\"'\s{}$<>]{8,100}[\"']"
# By the word they begin with, in a text of small letters.
_PASSWORDS = {
    "passw": re.compile("passw(?:or)?d" + _GIVEN),
    "secret_key": re.compile("secret_key" + _GIVEN),
    "api_key": re.compile("api_key" + _GIVEN),
    "auth_token": re.compile("auth_token" + _GIVEN),
}
_MAX = 20
_ENTITIES = re.compile(
    r"<!ENTITY\s+%?\s*[\w.-]{1,80}\s+(?:SYSTEM|PUBLIC)\b|<!ENTITY\s+([\w.-]{1,80})\s+\S?(?:&[\w.-]{1,80};\s*){4}"
)


def _place(text: str, offset: int) -> tuple[int, int]:
    """Line and column, which counts bytes of UTF-8."""
    start = text.rfind("\n", 0, offset) + 1
    return text.count("\n", 0, start) + 1, len(text[start:offset].encode()) + 1


def secrets_in_text(text: str) -> Iterator[TextSeen]:
    """At most 20 places where a secret of one form seems to stand; the fact's `text` is not the secret."""
    if "<!ENTITY" in text:
        yield from _seen(text, "an XML entity", _ENTITIES)
    for sign, forms in _FORMS:
        if sign in text if isinstance(sign, str) else sign.search(text):
            for name, pattern in forms:
                yield from _seen(text, name, pattern)
    yield from _passwords(text)


def _passwords(text: str) -> Iterator[TextSeen]:
    # Only letters of ASCII: what others become may have another length.
    lower = text.lower() if text.isascii() else text.encode().lower().decode()
    spans = [match.span() for word, pattern in _PASSWORDS.items() if word in lower for match in pattern.finditer(lower)]
    end = 0
    for start, after in sorted(spans)[:_MAX]:
        if start >= end:  # `api_key_password = ...` is one
            end = after
            line, column = _place(text, start)
            yield TextSeen(text="", name="a password", line=line, column=column)


def _seen(text: str, name: str, pattern: re.Pattern[str]) -> Iterator[TextSeen]:
    for match in islice(pattern.finditer(text), _MAX):
        line, column = _place(text, match.start())
        yield TextSeen(text="", name=name, line=line, column=column)
