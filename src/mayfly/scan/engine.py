"""From source bytes to a verdict: checks of the bytes, facts, rules, policy."""

from __future__ import annotations

import re
import sys
import time
from typing import TYPE_CHECKING

import msgspec

from mayfly.model import Finding, Verdict
from mayfly.scan.capabilities import capabilities_of
from mayfly.scan.facts import program_end
from mayfly.scan.nested import facts_of
from mayfly.scan.rule import Scene
from mayfly.scan.rules import rules_for
from mayfly.scan.secrets_in_text import secrets_in_text
from mayfly.scan.source import Refusal, oddities, read_program

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mayfly.model import Severity, VerdictKind
    from mayfly.scan.facts import Fact, ScanLanguage
    from mayfly.scan.manifest import Manifest
    from mayfly.scan.policy import Policy
    from mayfly.scan.rule import Hit, Rule
    from mayfly.scan.source import Program

__all__ = ["SCANNER_VERSION", "scan", "unparseable"]

SCANNER_VERSION = "6"
"""Grows with every change that can change a verdict."""

_RANK: dict[str, int] = {"low": 0, "medium": 1, "high": 2, "critical": 3}
_MAX_FINDINGS = 100
_MAX_MESSAGE = 400


def scan(
    source: bytes,
    *,
    lang: ScanLanguage,
    policy: Policy,
    manifest: Manifest | None = None,
    file_name: str = "",
    keep: list[object] | None = None,
) -> Verdict:
    """The verdict on a program. Never raises; whatever cannot be looked at is `unparseable`.

    Does no I/O but what the policy's `layers` do. `file_name` is for layers with rules about certain files. What was
    made on the way and takes time to free is put into `keep`, for callers that have that time later.
    """
    started = time.perf_counter()
    versions = {"scanner": SCANNER_VERSION, "policy": policy.version, "python": _python_version()}
    try:
        verdict = _judge(source, Scene(policy, manifest, lang), file_name, keep)
    except (Exception, RecursionError) as error:  # noqa: BLE001 - a scanner that fails must refuse, not raise
        refusal = Refusal("limit", f"the scan could not finish ({type(error).__name__})")
        verdict = unparseable(refusal.message, kind=refusal.kind)
    ms = round((time.perf_counter() - started) * 1000, 3)
    return Verdict(
        verdict=verdict.verdict,
        findings=verdict.findings,
        capabilities=verdict.capabilities,
        parse=verdict.parse,
        versions=versions | verdict.versions,
        ms=ms,
    )


def unparseable(message: str, *, kind: str = "limit", line: int = 0, column: int = 0) -> Verdict:
    """The verdict on what cannot be looked at: a refusal, with one finding that says why."""
    rule = _unparseable_rule()
    finding = Finding(
        rule=rule.id, severity=rule.severity, message=message[:_MAX_MESSAGE], cwe=rule.cwe, line=line, column=column
    )
    return Verdict(verdict="unparseable", findings=(finding,), parse=f"{kind}: {message}"[:_MAX_MESSAGE])


def _unparseable_rule() -> Rule:
    from mayfly.scan.rules.src_001_unparseable import RULE

    return RULE


def _python_version() -> str:
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def _judge(source: bytes, scene: Scene, file_name: str, keep: list[object] | None) -> Verdict:
    policy, lang = scene.policy, scene.lang
    program = read_program(source, lang)
    if isinstance(program, Refusal):
        return unparseable(program.message, kind=program.kind, line=program.line, column=program.column)
    facts = facts_of(program, scene.manifest, keep)
    if isinstance(facts, Refusal):
        return unparseable(facts.message, kind=facts.kind, line=facts.line, column=facts.column)
    facts += oddities(program)
    facts += secrets_in_text(program.text)
    facts.append(program_end(facts))
    others: list[Finding] = []
    versions: dict[str, str] = {}
    if policy.layers:
        from mayfly.scan.layers import findings_of, popular_packages

        others, gaps, versions = findings_of(policy.layers, program, file_name)
        facts += gaps
        if "guarddog" in versions:
            scene = Scene(policy, scene.manifest, lang, popular_packages())
    findings = _findings(facts, scene)
    findings += _moved(others, policy)
    findings += _own_patterns(program, policy)
    findings.sort(key=lambda f: (-_RANK[f.severity], f.line, f.column, f.rule))
    return Verdict(
        verdict=_kind(findings, policy),
        findings=tuple(findings[:_MAX_FINDINGS]),
        capabilities=capabilities_of(facts, lang),
        versions=versions,
    )


def _moved(findings: Iterable[Finding], policy: Policy) -> Iterator[Finding]:
    """Layers' findings with the severities that the policy gives them."""
    for finding in findings:
        moved = policy.severity.get(finding.rule)
        if moved != "off":
            yield finding if moved is None else msgspec.structs.replace(finding, severity=moved)


def _findings(facts: Iterable[Fact], scene: Scene) -> list[Finding]:
    """What the rules say of the facts, each rule once a place."""
    moves = scene.policy.severity
    found: dict[tuple[str, int, int], Finding] = {}
    for fact in facts:
        for check, rule in rules_for(fact):
            if (hit := check(fact, scene)) is None or (moved := moves.get(rule.id)) == "off":
                continue
            key = (rule.id, fact.line, fact.column)
            finding = _finding(rule, fact, hit, moved)
            # Of several facts at one place (the parts of one expression) the gravest is told.
            if key not in found or _RANK[finding.severity] > _RANK[found[key].severity]:
                found[key] = finding
    return list(found.values())


def _finding(rule: Rule, fact: Fact, hit: Hit, moved: Severity | None) -> Finding:
    message = hit.message if fact.depth == 0 else f"{hit.message} (inside an encoded or nested program)"
    return Finding(
        rule=rule.id,
        severity=moved or hit.severity or rule.severity,
        message=message[:_MAX_MESSAGE],
        confidence=hit.confidence or rule.confidence,
        cwe=rule.cwe,
        line=fact.line,
        column=fact.column,
        capabilities=rule.capabilities,
    )


def _own_patterns(program: Program, policy: Policy) -> list[Finding]:
    """The policy's own rules: each reports the first line that matches."""
    found: list[Finding] = []
    for own in policy.pattern:
        moved = policy.severity.get(own.id)
        if moved == "off" or (own.languages and program.lang not in own.languages):
            continue
        pattern = re.compile(own.pattern)
        for number, line in enumerate(program.text.splitlines(), 1):
            if match := pattern.search(line):
                found.append(
                    Finding(
                        rule=own.id,
                        severity=moved or own.severity,
                        message=own.message,
                        cwe=own.cwe,
                        line=number,
                        column=match.start() + 1,
                    )
                )
                break
    return found


def _kind(findings: list[Finding], policy: Policy) -> VerdictKind:
    worst = max((_RANK[finding.severity] for finding in findings), default=-1)
    if worst >= _RANK[policy.deny_at]:
        return "deny" if policy.enforce else "review"
    if worst < _RANK[policy.review_at]:
        return "allow"
    return "deny" if policy.review == "deny" and policy.enforce else "review"
