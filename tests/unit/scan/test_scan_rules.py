"""Every rule flags its example and leaves its near miss alone; the set of rules is in order."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mayfly.scan import builtin_policy, parse_policy, scan
from mayfly.scan.rules import all_rules

DEFAULT = builtin_policy("default")
EXAMPLES = [(rule, lang, source) for rule in all_rules() for lang, source in rule.examples.items()]
NEAR_MISSES = [(rule, lang, source) for rule in all_rules() for lang, source in rule.near_misses.items()]


def _flagged(source: str, lang: str) -> set[str]:
    verdict = scan(source.encode(), lang=lang, policy=DEFAULT)  # type: ignore[arg-type]
    return {finding.rule for finding in verdict.findings}


@pytest.mark.parametrize(("rule", "lang", "source"), EXAMPLES, ids=[f"{rule.id}-{lang}" for rule, lang, _ in EXAMPLES])
def test_a_rule_flags_its_example(rule, lang, source) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    assert rule.id in _flagged(source, lang)


@pytest.mark.parametrize(
    ("rule", "lang", "source"), NEAR_MISSES, ids=[f"{rule.id}-{lang}" for rule, lang, _ in NEAR_MISSES]
)
def test_a_rule_leaves_its_near_miss_alone(rule, lang, source) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    assert rule.id not in _flagged(source, lang)


def test_ids_are_unique_and_well_formed() -> None:
    ids = [rule.id for rule in all_rules()]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"MF-[A-Z]{3,4}-\d{3}", name) for name in ids)


def test_every_file_in_the_folder_is_one_rule_with_the_files_number() -> None:
    import mayfly.scan.rules

    folder = Path(mayfly.scan.rules.__file__).parent
    files = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    assert files == set(mayfly.scan.rules._FILES)
    named = {"MF-" + "-".join(name.split("_")[:2]).upper() for name in files}
    assert named == {rule.id for rule in all_rules()}


def test_every_rule_explains_itself() -> None:
    for rule in all_rules():
        assert rule.title
        assert rule.rationale
        assert not rule.title.endswith(".")
        assert rule.examples or "policy" in rule.title, rule.id
        assert rule.near_misses, rule.id


POLICY = parse_policy(
    b'name = "ours"\n[imports]\ndeny = ["ctypes"]\n[paths]\ndeny = ["/data/private"]\nallow = ["/etc/motd"]\n'
    b'[hosts]\ndeny = ["bad.example"]\nallow = ["10.1.2.3"]\n'
)


@pytest.mark.parametrize(
    ("source", "rule"),
    [
        ("import ctypes.util", "MF-IMP-004"),
        ("open('/data/private/a.csv')", "MF-FILE-016"),
        ("import requests\nrequests.get('https://www.bad.example/x')", "MF-NET-013"),
    ],
)
def test_what_the_policy_denies_is_denied(source: str, rule: str) -> None:
    verdict = scan(source.encode(), lang="python", policy=POLICY)
    assert verdict.verdict == "deny"
    assert rule in {finding.rule for finding in verdict.findings}


@pytest.mark.parametrize(
    "source",
    ["open('/etc/motd', 'w').write('x')", "import urllib.request\nurllib.request.urlopen('http://10.1.2.3/x')"],
)
def test_what_the_policy_allows_by_name_is_no_finding(source: str) -> None:
    assert scan(source.encode(), lang="python", policy=DEFAULT).verdict != "allow"
    assert scan(source.encode(), lang="python", policy=POLICY).verdict == "allow"


def test_a_policy_with_only_takes_named_hosts_and_paths() -> None:
    policy = parse_policy(
        b'name = "ours"\n[hosts]\nonly = true\nallow = ["pypi.org"]\n[paths]\nonly = true\nallow = ["/data"]'
    )
    assert scan(b"open('/data/x')", lang="python", policy=policy).verdict == "allow"
    assert scan(b"open('x.csv')", lang="python", policy=policy).verdict == "deny"
    assert scan(b"curl https://example.com", lang="bash", policy=policy).verdict == "deny"


def test_what_a_rule_is_narrowed_to_is_among_what_it_judges() -> None:
    for rule in all_rules():
        assert set(rule.only) <= set(rule.facts), rule.id
        for kind, names in rule.only.items():
            fields = kind.__struct_fields__
            assert "name" in fields or "op" in fields, rule.id
            assert all(name.strip("*") and "*" not in name[1:-1] for name in names), rule.id


@pytest.mark.parametrize(
    ("call", "rule"),
    [
        ("import nmap\nnmap.PortScanner().scan('10.0.0.1')", "MF-NET-008"),
        ("import psutil\nprint(psutil.net_connections(kind='inet'))", "MF-NET-009"),
        ("import keyboard\nkeyboard.on_press(print)", "MF-REC-004"),
        ("import ctypes\nctypes.windll.user32.SetWindowsHookExA(13, 0, 0, 0)", "MF-REC-004"),
        ("import winreg\nwinreg.OpenKey(winreg.HKCU, r'Windows\\CurrentVersion\\Run')", "MF-PERS-003"),
    ],
)
def test_rules_see_calls_by_the_start_or_the_end_of_a_name(call: str, rule: str) -> None:
    assert rule in _flagged(call, "python")


@pytest.mark.parametrize("name", ["password", "PASSWORD", "DbPassword", "Api_Key", "AUTH_token"])
def test_a_password_in_the_source_is_seen_however_its_name_is_written(name: str) -> None:
    assert "MF-SEC-001" in _flagged(f"{name} = 'correct-horse-7'", "python")


def test_a_password_is_told_once_and_at_its_place_among_other_letters() -> None:
    source = "# \u0130\u00df\u1e9e\nx = '\u0130'; API_KEY_password = 'correct-horse-7'\n"
    found = scan(source.encode(), lang="python", policy=DEFAULT).findings
    assert [(f.rule, f.line, f.column) for f in found] == [("MF-SEC-001", 2, 11)]


@pytest.mark.parametrize(
    ("source", "rule"),
    [
        ("import yaml\nyaml.unsafe_load_all(open('a'))", "MF-NAT-004"),
        ("from ruamel.yaml import YAML\nYAML(typ='unsafe').load(open('a'))", "MF-NAT-004"),
        ("import jsonpickle\njsonpickle.unpickler.decode(open('a').read())", "MF-NAT-004"),
        ("from keras.models import load_model\nload_model('a.keras', safe_mode=False)", "MF-NAT-004"),
        ("from sklearn.externals import joblib\njoblib.load('a')", "MF-NAT-002"),
        ("import hickle\nhickle.load('a')", "MF-NAT-002"),
    ],
)
def test_loaders_that_run_what_they_read_are_seen(source: str, rule: str) -> None:
    assert rule in _flagged(source, "python")


@pytest.mark.parametrize(
    "source",
    [
        "import yaml\nyaml.safe_load_all(open('a'))",
        "from ruamel.yaml import YAML\nYAML(typ='safe').load(open('a'))",
        "from ruamel.yaml import YAML\nYAML().load(open('a'))",
        "from keras.models import load_model\nload_model('a.keras')",
    ],
)
def test_loaders_that_build_only_what_they_know_are_left_alone(source: str) -> None:
    assert not {"MF-NAT-002", "MF-NAT-004"} & _flagged(source, "python")
