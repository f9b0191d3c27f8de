"""Verdicts as SARIF 2.1.0, the form that code hosts and editors read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from mayfly.scan.engine import SCANNER_VERSION
from mayfly.scan.rules import all_rules

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mayfly.model import Finding, Verdict
    from mayfly.scan.rule import Rule

__all__ = ["sarif"]

_LEVEL = {"low": "note", "medium": "warning", "high": "error", "critical": "error"}
_SCORE = {"low": "2.0", "medium": "5.0", "high": "8.0", "critical": "9.5"}


def sarif(results: Sequence[tuple[str, Verdict, Sequence[bytes]]]) -> dict[str, Any]:
    """One SARIF log with one run; `results` holds each file's name (as it was given), verdict and lines.

    Columns count characters, as SARIF wants them; a verdict's count bytes of UTF-8. Findings of a policy's own rules
    and of other scanners have rules without a description beside ours.
    """
    rules = all_rules()
    index = {rule.id: number for number, rule in enumerate(rules)}
    found: list[dict[str, Any]] = []
    for name, verdict, lines in results:
        found += [_result(name, finding, index, lines) for finding in verdict.findings]
    return {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {"name": "mayfly scan", "version": SCANNER_VERSION, "rules": [_rule(r) for r in rules]}
                },
                "columnKind": "unicodeCodePoints",
                "invocations": [
                    {
                        "executionSuccessful": True,
                        "toolExecutionNotifications": [
                            _notification(name, verdict)
                            for name, verdict, _ in results
                            if verdict.verdict == "unparseable"
                        ],
                    }
                ],
                "results": found,
            }
        ],
    }


def _rule(rule: Rule) -> dict[str, Any]:
    tags = ["security", *([f"external/cwe/{rule.cwe.lower()}"] if rule.cwe else []), *rule.capabilities]
    return {
        "id": rule.id,
        "shortDescription": {"text": rule.title},
        "fullDescription": {"text": rule.rationale},
        "defaultConfiguration": {"level": _LEVEL[rule.severity]},
        "properties": {"tags": tags, "precision": rule.confidence, "security-severity": _SCORE[rule.severity]},
    }


def _notification(name: str, verdict: Verdict) -> dict[str, Any]:
    return {
        "level": "error",
        "message": {"text": f"not to be parsed: {_clean(verdict.parse)}"},
        "locations": [{"physicalLocation": {"artifactLocation": {"uri": _uri(name)}}}],
    }


def _uri(name: str) -> str:
    """A relative reference; bytes of a name that are not UTF-8 stay what they are."""
    return quote(name.encode("utf-8", "surrogateescape"))


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")


def _column(finding: Finding, lines: Sequence[bytes]) -> int:
    if finding.line > len(lines):
        return 1
    return len(lines[finding.line - 1][: max(finding.column - 1, 0)].decode("utf-8", "replace")) + 1


def _result(name: str, finding: Finding, index: dict[str, int], lines: Sequence[bytes]) -> dict[str, Any]:
    place: dict[str, Any] = {"artifactLocation": {"uri": _uri(name)}}
    if finding.line > 0:
        place["region"] = {"startLine": finding.line, "startColumn": _column(finding, lines)}
    result: dict[str, Any] = {
        "ruleId": finding.rule,
        "level": _LEVEL[finding.severity],
        "message": {"text": _clean(finding.message)},
        "locations": [{"physicalLocation": place}],
        "properties": {"confidence": finding.confidence, "capabilities": list(finding.capabilities)},
    }
    if finding.rule in index:
        result["ruleIndex"] = index[finding.rule]
    return result
