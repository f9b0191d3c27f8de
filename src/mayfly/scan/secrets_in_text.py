"""Secrets in the source, found by their form."""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING

from mayfly.scan.facts import TextSeen

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["secrets_in_text"]

# What a text must hold for a form to be worth the search, what it is, and its form.
_FORMS: tuple[tuple[tuple[str, ...], str, re.Pattern[str]], ...] = (
    (("AKIA", "ASIA"), "an AWS access key", re.compile(r"\b(?:AKIA|ASIA)[A-Z2-7]{16}\b")),
    (("PRIVATE KEY",), "a private key", re.compile(r"-----BEGIN (?:RSA |EC |DSA |OPENSSH |PGP )?PRIVATE KEY")),
    (
        ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
        "a GitHub token",
        re.compile(r"\b(?:ghp|gho|ghu|ghs|ghr)_[A-Za-z0-9]{36}\b|\bgithub_pat_\w{50,}"),
    ),
    (("glpat-",), "a GitLab token", re.compile(r"\bglpat-[\w-]{20,}")),
    (("xox",), "a Slack token", re.compile(r"\bxox[abprs]-[0-9A-Za-z-]{20,}")),
    (("AIza",), "a Google API key", re.compile(r"\bAIza[\w-]{35}\b")),
    (("k_live_",), "a Stripe key", re.compile(r"\b[rs]k_live_[0-9A-Za-z]{20,}")),
    (("sk-",), "a model provider's key", re.compile(r"\bsk-(?:proj-|ant-)?[A-Za-z0-9_-]{32,}")),
    (("pypi-AgEI",), "a PyPI token", re.compile(r"\bpypi-AgEI[\w-]{50,}")),
    ((":AA",), "a bot token", re.compile(r"\b\d{8,10}:AA[\w-]{33}\b")),
    (
        ("assw", "ASSW", "ecret_", "ECRET_", "pi_key", "PI_KEY", "pi_Key", "uth_token", "UTH_TOKEN"),
        "a password",
        re.compile(
            r"(?i)(?:passw(?:or)?d|secret_key|api_key|auth_token)\w{0,30}[\"']?\s?[:=]\s?"
            r"[\"'](?=[^\"']{0,100}\d)[^\"'\s{}$<>]{8,100}[\"']"
        ),
    ),
)
_MAX = 20
_ENTITIES = re.compile(
    r"<!ENTITY\s+%?\s*[\w.-]{1,80}\s+(?:SYSTEM|PUBLIC)\b|<!ENTITY\s+([\w.-]{1,80})\s+\S?(?:&[\w.-]{1,80};\s*){4}"
)


def _place(text: str, offset: int) -> tuple[int, int]:
    return text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)


def secrets_in_text(text: str) -> Iterator[TextSeen]:
    """At most 20 places where a secret of one form seems to stand; the fact's `text` is not the secret."""
    if "<!ENTITY" in text:
        for match in islice(_ENTITIES.finditer(text), _MAX):
            line, column = _place(text, match.start())
            yield TextSeen(text="", name="an XML entity", line=line, column=column)
    for signs, name, pattern in _FORMS:
        for sign in signs:
            if sign in text:
                break
        else:
            continue
        for match in islice(pattern.finditer(text), _MAX):
            line, column = _place(text, match.start())
            yield TextSeen(text="", name=name, line=line, column=column)
