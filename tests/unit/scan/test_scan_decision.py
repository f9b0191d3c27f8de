"""What follows from a verdict: run, refuse, narrow, or ask for approval by finding."""

from __future__ import annotations

import pytest

from mayfly.model import Finding, Severity, Verdict, VerdictKind
from mayfly.scan import builtin_policy, parse_policy
from mayfly.scan.decision import decide, finding_id

DEFAULT = builtin_policy("default")
ASK = parse_policy(b'name = "asks"\nreview = "ask"')


def _finding(severity: Severity, line: int) -> Finding:
    return Finding(rule="MF-NET-003", severity=severity, message="m", line=line, column=5)


@pytest.mark.parametrize("kind", ["deny", "unparseable"])
def test_a_refusal_stays_one_whatever_is_approved(kind: VerdictKind) -> None:
    finding = _finding("high", 1)
    decision = decide(Verdict(verdict=kind, findings=(finding,)), ASK, {finding_id(finding)})
    assert not decision.run


def test_what_is_allowed_runs_as_it_is() -> None:
    decision = decide(Verdict(verdict="allow"), DEFAULT)
    assert (decision.run, decision.narrowed) == (True, False)


def test_a_review_runs_narrowed_by_default_and_is_refused_under_strict() -> None:
    verdict = Verdict(verdict="review", findings=(_finding("medium", 1),))
    assert decide(verdict, DEFAULT).narrowed
    assert not decide(verdict, builtin_policy("strict")).run
    assert decide(verdict, builtin_policy("research")).run


def test_a_review_that_asks_runs_when_every_finding_is_approved() -> None:
    findings = (_finding("medium", 1), _finding("medium", 2), _finding("low", 3))
    verdict = Verdict(verdict="review", findings=findings)
    first = decide(verdict, ASK, {"MF-NET-003@1:5"})
    assert (first.run, first.missing) == (False, ("MF-NET-003@2:5",))
    assert decide(verdict, ASK, {"MF-NET-003@1:5", "MF-NET-003@2:5"}).run
