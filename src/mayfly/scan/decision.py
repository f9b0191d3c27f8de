"""What follows from a verdict under a policy: run, refuse, or ask."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Container

    from mayfly.model import Finding, Verdict
    from mayfly.scan.policy import Policy

__all__ = ["Decision", "decide", "finding_id"]

_RANK = {"low": 0, "medium": 1, "high": 2, "critical": 3}


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """`run`: it may run. `narrowed`: only with the capabilities that the verdict names.

    `missing` are the ids of the findings that somebody has to approve first.
    """

    run: bool
    narrowed: bool = False
    missing: tuple[str, ...] = ()


def finding_id(finding: Finding) -> str:
    """What a caller names to approve a finding: rule, line and column."""
    return f"{finding.rule}@{finding.line}:{finding.column}"


def decide(verdict: Verdict, policy: Policy, approved: Container[str] = ()) -> Decision:
    """Deny and unparseable never run, whatever was approved; a review runs, or waits, as the policy says."""
    if verdict.verdict in ("deny", "unparseable"):
        return Decision(run=False)
    if verdict.verdict == "allow" or not policy.enforce:
        return Decision(run=True)
    if policy.review == "deny":
        return Decision(run=False)
    if policy.review == "allow":
        return Decision(run=True, narrowed=True)
    open_ids = [finding_id(f) for f in verdict.findings if _RANK[f.severity] >= _RANK[policy.review_at]]
    missing = tuple(name for name in open_ids if name not in approved)
    return Decision(run=not missing, narrowed=not missing, missing=missing)
