"""Import validation: standard library, image, policy, known, look-alike, unknown."""

from __future__ import annotations

import msgspec
import pytest

from mayfly.errors import InvalidRequestError
from mayfly.scan import Manifest, Policy, builtin_policy, parse_manifest, parse_policy, scan

IMAGE = Manifest(image="python", python="3.13.5", stdlib=("json", "os", "sys"), modules=("numpy", "numpyy"))


def rules_of(source: str, *, policy: Policy | None = None, manifest: Manifest | None = IMAGE) -> dict[str, str]:
    verdict = scan(source.encode(), lang="python", policy=policy or builtin_policy("default"), manifest=manifest)
    return {f.rule: f.message for f in verdict.findings if f.rule.startswith("MF-IMP")} | {"verdict": verdict.verdict}


@pytest.mark.parametrize("source", ["import json", "import numpy.linalg", "from os import path", "from . import x"])
def test_what_the_image_holds_is_no_finding(source: str) -> None:
    assert rules_of(source) == {"verdict": "allow"}


def test_a_known_package_that_the_image_lacks_is_a_note_naming_image_and_distribution() -> None:
    found = rules_of("import sklearn")
    assert found["verdict"] == "allow"
    assert found["MF-IMP-001"] == "module sklearn is not in image python (it comes with scikit-learn)"


def test_a_package_that_the_image_holds_is_no_look_alike_of_another() -> None:
    assert rules_of("import numpyy") == {"verdict": "allow"}


@pytest.mark.parametrize(("name", "meant"), [("reqeusts", "requests"), ("Requests", "requests"), ("panda", "pandas")])
def test_a_name_one_slip_away_from_a_known_one_is_reviewed(name: str, meant: str) -> None:
    found = rules_of(f"import {name}")
    assert found["verdict"] == "review"
    assert meant in found["MF-IMP-003"]


def test_an_unknown_package_is_reviewed_unless_the_program_copes_without_it() -> None:
    assert "MF-IMP-002" in rules_of("import totally_invented")
    assert "MF-IMP-002" not in rules_of("try:\n    import totally_invented\nexcept ImportError:\n    pass")


def test_imports_inside_functions_are_seen() -> None:
    assert "MF-IMP-002" in rules_of("def f():\n    import totally_invented")


def test_a_policy_denies_and_allows_imports() -> None:
    policy = parse_policy(b'name = "ours"\n[imports]\ndeny = ["json", "os"]\nallow = ["os.path", "invented_thing"]')
    assert rules_of("import json.decoder", policy=policy)["verdict"] == "deny"
    assert rules_of("import os.path", policy=policy)["verdict"] == "allow"
    assert rules_of("import invented_thing", policy=policy)["verdict"] == "allow"


def test_the_strict_policy_takes_its_allow_list_only() -> None:
    strict = builtin_policy("strict")
    assert "MF-IMP-005" in rules_of("import os", policy=strict)
    assert rules_of("import json", policy=strict)["verdict"] == "allow"


def test_a_manifest_is_read_from_its_file_and_ignores_what_it_does_not_know() -> None:
    data = msgspec.json.encode({"image": "python", "python": "3.13.5", "stdlib": ["os"], "bytes": 7})
    assert parse_manifest(data).stdlib == ("os",)
    with pytest.raises(InvalidRequestError, match="not an image manifest"):
        parse_manifest(b'{"image": 3}')
