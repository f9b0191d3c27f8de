"""What the scan does with bytes, before and while they are parsed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mayfly.model import CODE_MAX_BYTES, Verdict
from mayfly.scan import Manifest, ScanLanguage, builtin_policy, scan

DEFAULT = builtin_policy("default")


def verdict_of(source: bytes, lang: ScanLanguage = "python", manifest: Manifest | None = None) -> Verdict:
    return scan(source, lang=lang, policy=DEFAULT, manifest=manifest)


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        pytest.param(b"x" * (CODE_MAX_BYTES + 1), "size", id="over-size"),
        pytest.param(b"print(1)\0", "nul", id="nul"),
        pytest.param(b"print('\xff')", "encoding", id="latin-1-bytes"),
        pytest.param("print(1)".encode("utf-16"), "nul", id="utf-16"),
        pytest.param(b"# -*- coding: latin-1 -*-\nprint(1)", "cookie", id="latin-1-cookie"),
        pytest.param(b"#!/usr/bin/python3\r# coding=unicode_escape\nx=1", "cookie", id="cookie-after-bare-cr"),
        pytest.param(b"\xef\xbb\xbf# coding: utf-7\nx=1", "cookie", id="cookie-after-bom"),
        pytest.param(b"def f(:\n", "syntax", id="syntax-error"),
        pytest.param(b"(" * 5000 + b")" * 5000, "syntax", id="nested-parentheses"),
        pytest.param(b"x = " + b"9" * 100_000, "syntax", id="enormous-integer"),
        pytest.param(b"-" * 100_000 + b"1", "limit", id="deep-unary"),
    ],
)
def test_what_cannot_be_read_is_unparseable_and_says_why(source: bytes, kind: str) -> None:
    verdict = verdict_of(source)
    assert verdict.verdict == "unparseable"
    assert verdict.parse.startswith(kind + ":")
    assert [f.rule for f in verdict.findings] == ["MF-SRC-001"]


def test_a_syntax_error_carries_pythons_message_its_place_and_the_line() -> None:
    finding = verdict_of(b"a = 1\nprint((a\n").findings[0]
    assert "SyntaxError: '(' was never closed" in finding.message
    assert "print((a" in finding.message
    assert (finding.line, finding.column) == (2, 7)


def test_newer_syntax_than_the_scanners_own_is_said_to_be_so() -> None:
    finding = verdict_of(b"x = = 1", manifest=Manifest(image="python", python="3.99.1")).findings[0]
    assert "the image has 3.99" in finding.message


@pytest.mark.parametrize(
    "source",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\n\n", id="blank"),
        pytest.param(b"\xef\xbb\xbfprint(1)", id="byte-order-mark"),
        pytest.param(b"# -*- coding: UTF-8 -*-\nprint(1)", id="utf-8-cookie"),
        pytest.param(b"x = 1\n# coding: latin-1\n", id="cookie-where-it-means-nothing"),
        pytest.param(b"print(1)\r\nprint(2)\r\n", id="crlf"),
        pytest.param("größe = 'שלום'".encode(), id="non-ascii-names-and-text"),
        pytest.param(rb"x = '\d'", id="invalid-escape-is-no-warning"),
        pytest.param(b"x = 1", id="one-statement"),
        pytest.param(b"x = '" + b"a" * 200_000 + b"'", id="long-line"),
    ],
)
def test_honest_programs_are_allowed_without_findings(source: bytes) -> None:
    verdict = verdict_of(source)
    assert verdict.verdict == "allow"
    assert verdict.findings == ()


@pytest.mark.parametrize(
    ("source", "rule", "verdict"),
    [
        pytest.param("# a\u202eb", "MF-SRC-002", "review", id="bidi"),
        pytest.param("# harmless\rprint(1)", "MF-SRC-003", "review", id="bare-cr"),
        pytest.param("\U0001d41eval('1')", "MF-SRC-004", "deny", id="mathematical-eval"),
        pytest.param("import os\nos.\U0001d42cystem('ls')", "MF-SRC-004", "deny", id="mathematical-attribute"),
    ],
)
def test_text_that_shows_other_than_it_runs_is_reported(source: str, rule: str, verdict: str) -> None:
    answer = verdict_of(source.encode())
    assert rule in [f.rule for f in answer.findings]
    assert answer.verdict == verdict


@given(st.binary(max_size=400), st.sampled_from(["python", "bash", "javascript"]))
def test_any_bytes_get_a_verdict_and_no_exception(source: bytes, lang: ScanLanguage) -> None:
    verdict = verdict_of(source, lang=lang)
    assert verdict.verdict in {"allow", "review", "deny", "unparseable"}
    assert set(verdict.versions) == {"scanner", "policy", "python"}
