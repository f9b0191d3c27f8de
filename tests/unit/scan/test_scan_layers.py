"""Other scanners beside our own: their findings count, and their absence is said and harms nothing."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from mayfly.errors import InvalidRequestError
from mayfly.scan import builtin_policy, parse_policy, scan
from mayfly.scan.imports import locate, resembles
from mayfly.scan.layers import findings_of, open_layer, popular_packages
from mayfly.scan.layers.guarddog import GuardDogLayer
from mayfly.scan.layers.popular import Popular
from mayfly.scan.source import Program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

HEXORA = parse_policy(b'name = "with-hexora"\nlayers = ["hexora"]')
GUARDDOG = parse_policy(b'name = "with-guarddog"\nlayers = ["guarddog"]')
OBFUSCATED = b"import base64\nexec(base64.b64decode('cHJpbnQoMSk='))\n"

needs_hexora = pytest.mark.skipif(find_spec("hexora") is None, reason="hexora is not installed (extra `hexora`)")
needs_yara = pytest.mark.skipif(find_spec("yara") is None, reason="yara-python is not installed (extra `guarddog`)")
needs_guarddog = pytest.mark.skipif(
    find_spec("guarddog") is None or find_spec("yara") is None, reason="GuardDog is not installed (extra `guarddog`)"
)


@pytest.fixture
def no_layers(monkeypatch):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    def missing(name: str) -> object:
        if name in ("hexora", "yara"):
            raise ImportError(name)
        return import_module(name)

    open_layer.cache_clear()
    monkeypatch.setattr("mayfly.scan.layers.hexora.import_module", missing)
    monkeypatch.setattr("mayfly.scan.layers.guarddog.import_module", missing)
    yield
    open_layer.cache_clear()


@pytest.mark.usefixtures("no_layers")
@pytest.mark.parametrize("policy", [HEXORA, GUARDDOG], ids=["hexora", "guarddog"])
def test_a_layer_that_is_not_installed_is_a_note_and_changes_nothing_else(policy) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    verdict = scan(b"print(1)", lang="python", policy=policy)
    assert verdict.verdict == "allow"
    assert [f.rule for f in verdict.findings] == ["MF-LAY-001"]
    assert "pip install" in verdict.findings[0].message
    assert scan(OBFUSCATED, lang="python", policy=policy).verdict == "deny"


@needs_hexora
def test_hexora_finds_what_it_finds_at_the_right_place() -> None:
    verdict = scan(OBFUSCATED, lang="python", policy=HEXORA)
    found = {f.rule: f for f in verdict.findings}
    assert found["HEXORA-HX4010"].severity == "high"
    assert (found["HEXORA-HX4010"].line, found["HEXORA-HX4010"].column) == (2, 1)
    assert verdict.versions["hexora"]


@needs_hexora
def test_hexora_is_asked_about_programs_of_64_kib_at_most() -> None:
    assert not scan(b"x = 1\n" * 10_900, lang="python", policy=HEXORA).findings
    (note,) = scan(b"x = 1\n" * 11_000, lang="python", policy=HEXORA).findings
    assert note.rule == "MF-LAY-001"
    assert "64 KiB" in note.message


@needs_hexora
def test_hexora_is_not_asked_about_other_languages() -> None:
    assert not scan(b"echo hello", lang="bash", policy=HEXORA).findings


@needs_hexora
def test_a_policy_moves_a_layers_severities() -> None:
    policy = parse_policy(
        b'name = "ours"\nlayers = ["hexora"]\n[severity]\nHEXORA-HX4010 = "off"\nHEXORA-HX6000 = "high"'
    )
    found = {f.rule: f.severity for f in scan(OBFUSCATED, lang="python", policy=policy).findings}
    assert "HEXORA-HX4010" not in found
    assert found["HEXORA-HX6000"] == "high"


def _rule(name: str, **meta: str) -> str:
    lines = "".join(f'    {key} = "{value}"\n' for key, value in meta.items())
    return f'rule {name}\n{{\n  meta:\n{lines}  strings:\n    $a = "reach_out"\n  condition:\n    $a\n}}\n'


@needs_yara
def test_yara_rules_count_by_severity_specificity_and_file(tmp_path) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    (tmp_path / "a.yar").write_text(
        _rule("threat_a", severity="high", specificity="high", description="reaches  out", path_include="*.py,*.js")
        + _rule("threat_b", severity="high", specificity="low")
        + _rule("threat_setup", severity="high", specificity="high", path_include="*/setup.py,setup.py")
        + _rule("capability_c", severity="high", specificity="high", path_include="*.py")
    )
    (tmp_path / "broken.yar").write_text("rule broken { condition: nonsense }")
    layer = GuardDogLayer(tmp_path)

    def found(lang: str, name: str) -> dict[str, tuple[str, int, int, str]]:
        program = Program(lang, b"import x\nx.reach_out()\n", "import x\nx.reach_out()\n")  # type: ignore[arg-type]
        return {f.rule: (f.severity, f.line, f.column, f.message) for f in layer.findings(program, name)}

    plain = found("python", "")
    assert plain["GUARDDOG-THREAT-A"] == ("high", 2, 3, "reaches out")
    assert plain["GUARDDOG-THREAT-B"][0] == "low"
    assert plain["GUARDDOG-CAPABILITY-C"][0] == "low"
    assert "GUARDDOG-THREAT-SETUP" not in plain
    assert "GUARDDOG-THREAT-SETUP" in found("python", "pkg/setup.py")
    assert set(found("bash", "")) == {"GUARDDOG-THREAT-B"}


@needs_yara
def test_a_folder_without_usable_rules_is_no_layer(tmp_path) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    with pytest.raises(Exception, match="no rules"):
        GuardDogLayer(tmp_path)
    (tmp_path / "broken.yar").write_text("rule broken { condition: nonsense }")
    with pytest.raises(Exception, match="compiled"):
        GuardDogLayer(tmp_path)


class _Matcher:
    """yara-python's part of the layer: answers with what a run of the rules was written down to say."""

    def __init__(self, answer: Callable[[], list[Any]]) -> None:
        self._answer = answer

    def match(self, *, data: bytes, timeout: int) -> list[Any]:
        assert data
        assert timeout > 0
        return self._answer()


def _match(rule: str, meta: dict[str, Any], *offsets: int) -> SimpleNamespace:
    strings = [SimpleNamespace(instances=[SimpleNamespace(offset=offset)]) for offset in offsets]
    return SimpleNamespace(rule=rule, meta=meta, strings=strings)


@pytest.fixture
def guarddog_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Callable[[Callable[[], list[Any]]], None]]:
    """Puts a GuardDog in place whose rules' run gives the answer handed in."""
    folder = tmp_path / "guarddog" / "analyzer" / "sourcecode"
    folder.mkdir(parents=True)
    (folder / "a.yar").write_text("rule a { condition: true }")

    def put(answer: Callable[[], list[Any]]) -> None:
        yara = ModuleType("yara")
        yara.SyntaxError = type("SyntaxError", (Exception,), {})  # type: ignore[attr-defined]
        yara.compile = lambda **_: _Matcher(answer)  # type: ignore[attr-defined]
        monkeypatch.setattr("mayfly.scan.layers.guarddog.import_module", lambda _name: yara)
        monkeypatch.setattr("mayfly.scan.layers.guarddog.guarddog_folder", lambda: tmp_path / "guarddog")
        monkeypatch.setattr("mayfly.scan.layers.guarddog.metadata.version", lambda _name: "9.9")
        open_layer.cache_clear()

    yield put
    open_layer.cache_clear()


def test_guarddogs_findings_join_ours_and_move_with_the_policy(guarddog_says) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    meta = {"severity": "high", "specificity": "high", "description": "fetches\n and runs", "path_include": "*.py"}
    guarddog_says(lambda: [_match("threat_runs_download", meta, 9, 4)])
    (found,) = scan(b"a = 1\nb = 2\n", lang="python", policy=GUARDDOG).findings
    assert (found.rule, found.severity, found.confidence) == ("GUARDDOG-THREAT-RUNS-DOWNLOAD", "high", "high")
    assert (found.line, found.column, found.message) == (1, 5, "fetches and runs")
    verdict = scan(b"a = 1\n", lang="python", policy=GUARDDOG)
    assert (verdict.verdict, verdict.versions["guarddog"]) == ("deny", "9.9")
    moved = parse_policy(b'name = "ours"\nlayers = ["guarddog"]\n[severity]\nGUARDDOG-THREAT-RUNS-DOWNLOAD = "medium"')
    assert scan(b"a = 1\n", lang="python", policy=moved).verdict == "review"


@pytest.mark.parametrize(
    ("meta", "offsets"),
    [
        ({}, ()),
        ({"severity": 7, "specificity": None, "description": None, "path_include": ""}, (-5,)),
        ({"severity": "high", "specificity": "unheard-of", "description": 3}, (10**9,)),
        ({"severity": "high", "specificity": "high", "description": "x" * 100_000, "path_include": " , "}, (0, 1)),
    ],
)
def test_what_guarddogs_rules_leave_out_or_overdo_makes_a_finding_all_the_same(  # type: ignore[no-untyped-def]
    guarddog_says,  # noqa: ANN001
    meta: dict[str, Any],
    offsets: tuple[int, ...],
) -> None:
    guarddog_says(lambda: [_match("threat_x", meta, *offsets)])
    (found,) = scan(b"a = 1\nb = 2\n", lang="python", policy=GUARDDOG).findings
    assert found.rule == "GUARDDOG-THREAT-X"
    assert found.severity == ("high" if meta.get("specificity") == "high" else "low")
    assert 1 <= found.line <= 3
    assert len(found.message) <= 400


class _TimeoutError(Exception):
    """As yara-python's own: no kin of the built-in one."""


def _late() -> list[Any]:
    raise _TimeoutError


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(_late, id="out-of-time"),
        pytest.param(lambda: None, id="nothing"),
        pytest.param(lambda: ["text"], id="no-matches"),
        pytest.param(lambda: [_match("threat_x", None)], id="no-meta"),  # type: ignore[arg-type]
        pytest.param(lambda: [SimpleNamespace(rule="threat_x", meta={}, strings=[None])], id="no-offsets"),
    ],
)
def test_a_guarddog_that_fails_is_a_note_beside_our_own_verdict(guarddog_says, answer) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    guarddog_says(answer)
    (note,) = scan(b"a = 1\n", lang="python", policy=GUARDDOG).findings
    assert note.rule == "MF-LAY-001"
    assert "failed at this program" in note.message
    assert scan(OBFUSCATED, lang="python", policy=GUARDDOG).verdict == "deny"


def test_a_flood_of_guarddogs_findings_is_cut(guarddog_says) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    guarddog_says(lambda: [_match(f"capability_{number}", {}, 0) for number in range(10_000)])
    verdict = scan(b"a = 1\n", lang="python", policy=GUARDDOG)
    assert verdict.verdict == "allow"
    assert 1 <= len(verdict.findings) <= 100


@pytest.mark.parametrize("text", ["", "[]", '{"packages": "a"}', '{"packages": [1]}', "\x00"])
def test_a_list_of_packages_that_cannot_be_read_counts_as_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str
) -> None:
    monkeypatch.setattr("mayfly.scan.layers.popular.guarddog_folder", lambda: tmp_path)
    file = tmp_path / "analyzer" / "metadata" / "resources" / "top_pypi_packages.json"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    popular_packages.cache_clear()
    assert popular_packages().known == frozenset()
    file.write_text('{"packages": ["Some-Package", "a.b"]}')
    popular_packages.cache_clear()
    assert popular_packages() == Popular(frozenset({"some_package", "a_b"}), ("some_package",))
    popular_packages.cache_clear()


@needs_guarddog
def test_guarddogs_own_rules_are_used() -> None:
    verdict = scan(OBFUSCATED, lang="python", policy=GUARDDOG)
    assert any(f.rule.startswith("GUARDDOG-THREAT-") for f in verdict.findings)
    assert verdict.versions["guarddog"]


@needs_guarddog
def test_guarddogs_list_tells_known_from_imitated_packages() -> None:
    assert len(popular_packages().known) > 10_000
    verdict = scan(b"import flask_socketio\nimport torchvison\n", lang="python", policy=GUARDDOG)
    assert {f.rule for f in verdict.findings} == {"MF-IMP-001", "MF-IMP-003"}


def test_popular_names_are_known_and_near_misses_of_the_most_popular_are_told() -> None:
    popular = Popular(frozenset({"quickparse", "quickparze"}), ("quickparse",))
    assert locate("quickparse", None) == "unknown"
    assert locate("quickparse", None, popular) == "known"
    assert locate("quickparze", None, popular) == "known"
    assert locate("quickprase", None, popular) == "lookalike"
    assert resembles("quickprase", popular) == "quickparse"


def test_a_layer_that_fails_is_a_note(monkeypatch) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    class Panic(BaseException):
        pass

    class Failing:
        name, version = "hexora", "0"

        def findings(self, *_: object) -> list[object]:
            raise Panic

    monkeypatch.setattr("mayfly.scan.layers.layer.open_layer", lambda _name: Failing())
    found, gaps, _ = findings_of(["hexora"], Program("python", b"", ""), "")
    assert not found
    assert "Panic" in gaps[0].reason


def test_an_unknown_layer_in_a_policy_is_an_error_that_names_it() -> None:
    with pytest.raises(InvalidRequestError, match="hexor") as caught:
        parse_policy(b'name = "ours"\nlayers = ["hexor"]')
    assert caught.value.field == "policy.layers[0]"


def test_layers_are_asked_for_by_policies_only() -> None:
    assert all(not builtin_policy(name).layers for name in ("default", "strict", "research"))
