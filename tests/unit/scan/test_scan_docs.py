"""The documentation of the scan is what the scan does."""

from __future__ import annotations

import re
from pathlib import Path

from mayfly.scan import builtin_policy, parse_policy, policy_names, scan
from mayfly.scan.reference import rule_reference

DOCS = Path(__file__).parents[3] / "docs"


def test_the_rule_reference_is_up_to_date() -> None:
    assert (DOCS / "scan-rules.md").read_text("utf-8") == rule_reference(), "run python -m mayfly.scan.reference"


def test_the_policy_in_the_documentation_is_one() -> None:
    text = (DOCS / "scan.md").read_text("utf-8")
    (example,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    assert parse_policy(example.encode()).review == "ask"
    assert all(f"`{name}`" in text for name in policy_names())


def test_the_bypass_in_the_documentation_still_gets_past() -> None:
    text = (DOCS / "scan.md").read_text("utf-8")
    (program,) = re.findall(r"```python\n(import datetime.*?)```", text, re.DOTALL)
    assert scan(program.encode(), lang="python", policy=builtin_policy("default")).verdict == "allow"
