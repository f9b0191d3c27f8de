"""Policies: built in, read from TOML, refused with a reason."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mayfly.errors import InvalidRequestError
from mayfly.scan import builtin_policy, parse_policy, policy_names, scan


def test_the_built_in_policies_are_named() -> None:
    assert policy_names() == ("default", "research", "strict")


def test_an_unknown_policy_names_the_field_and_the_known_ones() -> None:
    with pytest.raises(InvalidRequestError, match="default, research, strict") as caught:
        builtin_policy("lenient")
    assert caught.value.field == "policy"


@pytest.mark.parametrize(
    ("text", "field", "hint"),
    [
        ('name = "a"\nreveiw = "deny"', "policy.reveiw", "review"),
        ('name = "a"\n[imports]\nalow = []', "policy.imports.alow", "allow"),
        ('name = "a"\n[severity]\nMF-IMP-0O1 = "off"', "policy.severity.MF-IMP-0O1", "MF-IMP-001"),
        ('name = "a"\n[[pattern]]\nid = "X-1"\nregex = "x"\nmessage = "m"', "policy.pattern[0].regex", None),
        ('name = "a"\nreview = "maybe"', "policy.review", None),
        ('name = "a"\n[severity]\nMF-IMP-001 = "fatal"', "policy.severity.MF-IMP-001", None),
        ('name = "a"\ndeny_at = "fatal"', "policy.deny_at", None),
        ('name = "a"\n[[pattern]]\nid = "X-1"\npattern = "("\nmessage = "m"', "policy.pattern[0].pattern", None),
        ('name = "a"\n[[pattern]]\nid = "MF-1"\npattern = "x"\nmessage = "m"', "policy.pattern[0].id", None),
        ('extends = "nothing"', "policy", None),
        ("name = ", "policy", None),
    ],
)
def test_a_wrong_policy_is_refused_with_the_key_and_a_suggestion(text: str, field: str, hint: str | None) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse_policy(text.encode())
    assert caught.value.field == field
    assert hint is None or hint in (caught.value.hint or "")


def test_a_policy_starts_from_the_one_it_extends() -> None:
    policy = parse_policy(b'name = "ours"\nextends = "strict"\nreview = "ask"')
    assert policy.imports.only
    assert policy.review == "ask"
    assert policy.version != builtin_policy("strict").version


def test_a_policy_moves_and_silences_rules() -> None:
    source = b"import totally_invented"
    deny = parse_policy(b'name = "a"\n[severity]\nMF-IMP-002 = "critical"')
    off = parse_policy(b'name = "a"\n[severity]\nMF-IMP-002 = "off"')
    assert scan(source, lang="python", policy=deny).verdict == "deny"
    assert scan(source, lang="python", policy=off).findings == ()


def test_a_policy_adds_patterns_of_its_own() -> None:
    policy = parse_policy(
        b'name = "a"\n[[pattern]]\nid = "OUR-1"\npattern = "(?i)internal\\\\.corp"\nmessage = "our host"\n'
        b'severity = "high"\nlanguages = ["bash"]'
    )
    found = scan(b"echo 1\ncurl http://x.INTERNAL.corp\n", lang="bash", policy=policy)
    assert found.verdict == "deny"
    ours = [f for f in found.findings if f.rule == "OUR-1"]
    assert [(f.line, f.column) for f in ours] == [(2, 15)]
    assert scan(b"x = 'internal.corp'", lang="python", policy=policy).verdict == "allow"


def test_research_records_and_never_denies_what_can_be_read() -> None:
    source = "\U0001d41eval('1')".encode()
    assert scan(source, lang="python", policy=builtin_policy("research")).verdict == "review"
    assert scan(b"x\0", lang="python", policy=builtin_policy("research")).verdict == "unparseable"


@given(st.binary(max_size=200))
def test_any_bytes_are_a_policy_or_refused(data: bytes) -> None:
    with contextlib.suppress(InvalidRequestError):
        assert parse_policy(data).name
