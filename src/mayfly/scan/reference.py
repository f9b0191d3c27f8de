"""The rule reference as Markdown: `python -m mayfly.scan.reference > docs/scan-rules.md`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from mayfly.scan.rules import all_rules

if TYPE_CHECKING:
    from mayfly.scan.rule import Rule

__all__ = ["main", "rule_reference"]

_FAMILIES = {
    "SRC": "The source itself",
    "IMP": "Imports",
    "DYN": "Dynamic code",
    "FILE": "Files",
    "NET": "Network",
    "PROC": "Processes",
    "NAT": "Native code and deserialisation",
    "RES": "Resources",
    "PERS": "Persistence, accounts and guards",
    "REC": "Reconnaissance",
    "SEC": "Secrets",
}
_FENCE = {"python": "python", "bash": "bash", "javascript": "javascript"}


def rule_reference() -> str:
    """Every rule with its rationale, an example that it flags and a near miss that it does not."""
    rules = all_rules()
    out = [
        "# Rules of the scan",
        "",
        "Made from the rules themselves by `python -m mayfly.scan.reference`; do not edit. What the severities lead",
        "to, and how a policy moves them, is in [scan.md](scan.md). A finding may be graver or milder than its rule",
        "where the program shows more.",
    ]
    for family, title in _FAMILIES.items():
        members = [rule for rule in rules if rule.id.split("-")[1] == family]
        out += ["", f"## {title}", "", "| rule | severity | what |", "| --- | --- | --- |"]
        out += [f"| [{r.id}](#{r.id.lower()}) | {r.severity} | {r.title} |" for r in members]
        for rule in members:
            out += _section(rule)
    return "\n".join(out) + "\n"


def _section(rule: Rule) -> list[str]:
    facts = [f"severity {rule.severity}", f"confidence {rule.confidence}"]
    facts += [rule.cwe] if rule.cwe else []
    facts += [f"languages {', '.join(rule.languages)}"]
    facts += [f"capabilities {', '.join(rule.capabilities)}"] if rule.capabilities else []
    out = ["", f"### {rule.id}", "", f"**{rule.title}** ({'; '.join(facts)})", "", rule.rationale]
    for heading, programs in (("Flagged", rule.examples), ("Not flagged", rule.near_misses)):
        if programs:
            lang, source = next(iter(programs.items()))
            out += ["", f"{heading}:", "", f"```{_FENCE[lang]}", *_visible(source).rstrip("\n").split("\n"), "```"]
    return out


def _visible(source: str) -> str:
    """Characters that do not show, or that change how a line shows, are written out."""
    return "".join(
        c if c == "\n" or (c.isprintable() and c.isascii()) or c.isalnum() else ascii(c)[1:-1] for c in source
    )


def main() -> int:
    """Print the reference."""
    sys.stdout.write(rule_reference())
    return 0


if __name__ == "__main__":
    sys.exit(main())
