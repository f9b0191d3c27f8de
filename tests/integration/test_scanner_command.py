"""`mayfly scan` as a user runs it."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from mayfly.cli import cli

ROOT = Path(__file__).parents[2]
HOSTILE = "import os\nos.remove('/etc/passwd')\n"


def scan(*args: object, stdin: bytes = b"", cwd: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "mayfly", "scan", *map(str, args)]
    return subprocess.run(command, input=stdin, capture_output=True, timeout=60, cwd=cwd, check=False)


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    (tmp_path / "good.py").write_text("print(6 * 7)\n")
    (tmp_path / "maybe.sh").write_text("cat /etc/passwd\n")
    (tmp_path / "bad.py").write_text(HOSTILE)
    (tmp_path / "broken.py").write_bytes(b"print(\0")
    (tmp_path / "notes.txt").write_text("rm -rf /")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "x.py").write_text(HOSTILE)
    (tmp_path / "link.py").symlink_to(tmp_path / "bad.py")
    return tmp_path


@pytest.mark.parametrize(("name", "code"), [("good.py", 0), ("maybe.sh", 1), ("bad.py", 2), ("broken.py", 3)])
def test_the_exit_code_is_the_verdict(programs: Path, name: str, code: int) -> None:
    assert scan(programs / name).returncode == code


def test_the_report_names_the_file_and_underlines_the_line(programs: Path) -> None:
    shown = scan("bad.py", cwd=programs).stdout.decode().splitlines()
    assert shown[0].startswith("bad.py: deny; it seems to need: fs-write")
    line = shown.index("      2 | os.remove('/etc/passwd')")
    assert "MF-FILE-004" in shown[line - 1]
    assert shown[line + 1] == "          " + "~" * len("os.remove('/etc/passwd')")


def test_a_directory_is_scanned_without_links_and_hidden_folders(programs: Path) -> None:
    result = scan("--json", programs)
    found = {entry["file"].rpartition("/")[2]: entry["verdict"] for entry in json.loads(result.stdout)}
    assert found == {"bad.py": "deny", "broken.py": "unparseable", "good.py": "allow", "maybe.sh": "review"}
    assert result.returncode == 3


def test_several_files_end_with_a_count(programs: Path) -> None:
    shown = scan("good.py", "bad.py", "good.py", cwd=programs).stdout.decode().splitlines()
    assert shown[-1] == "3 programs: 2 allow, 1 deny"
    assert "programs:" not in scan("good.py", cwd=programs).stdout.decode()


def test_importing_the_package_does_not_load_the_scan() -> None:
    heavy = "('mayfly.scan', 'tree_sitter', 'rapidfuzz')"
    code = f"import sys, mayfly; print([m for m in sys.modules if m.startswith({heavy})])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=True)
    assert result.stdout.decode().strip() == "[]"


def test_one_file_as_json_has_every_field(programs: Path) -> None:
    verdict = json.loads(scan("--json", programs / "bad.py").stdout)
    assert set(verdict) == {"verdict", "findings", "capabilities", "parse", "versions", "ms"}
    fields = {"rule", "severity", "confidence", "cwe", "message", "line", "column", "capabilities"}
    assert all(set(finding) == fields for finding in verdict["findings"])


def test_sarif_names_rules_places_and_levels(programs: Path) -> None:
    log = json.loads(scan("--sarif", "bad.py", cwd=programs).stdout)
    assert log["version"] == "2.1.0"
    (run,) = log["runs"]
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert len(set(rules)) == len(rules)
    result = next(r for r in run["results"] if r["ruleId"] == "MF-FILE-004")
    assert rules[result["ruleIndex"]] == "MF-FILE-004"
    assert result["level"] == "error"
    place = result["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "bad.py"
    assert place["region"] == {"startLine": 2, "startColumn": 1}


def test_columns_of_sarif_count_characters_and_names_are_references(tmp_path: Path) -> None:
    folder = tmp_path / "a b"
    folder.mkdir()
    (folder / "é%#?.py").write_text("é = 'ñ'; import os; os.remove('/etc/passwd')\n")
    log = json.loads(scan("--sarif", "a b", cwd=tmp_path).stdout)
    place = next(r for r in log["runs"][0]["results"] if r["ruleId"] == "MF-FILE-004")["locations"][0]
    assert place["physicalLocation"]["artifactLocation"]["uri"] == "a%20b/%C3%A9%25%23%3F.py"
    assert place["physicalLocation"]["region"]["startColumn"] == 21


@pytest.mark.parametrize("form", ["--json", "--sarif", None])
def test_names_that_are_not_utf8_are_shown_all_the_same(tmp_path: Path, form: str | None) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/w\xff\xfe\n\x1b[1m.py")).write_text(HOSTILE, "ascii")
    result = scan(*([form] if form else []), tmp_path)
    assert result.returncode == 2
    assert b"Traceback" not in result.stderr
    assert b"\x1b" not in result.stdout
    assert b"MF-FILE-004" in result.stdout


def test_what_might_never_end_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.py")
    result = scan("pipe.py", "/dev/zero", cwd=tmp_path)
    assert result.returncode == 3
    assert result.stdout.decode().count("not a regular file") == 2


def test_a_pipe_of_the_shell_is_read(tmp_path: Path) -> None:
    command = f"{sys.executable} -m mayfly scan <(echo 'import os; os.remove(\"/etc/passwd\")')"
    result = subprocess.run(["bash", "-c", command], capture_output=True, timeout=60, cwd=tmp_path, check=False)
    assert result.returncode == 2


def test_components_in_typescript_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.tsx").write_text(
        "import fs from 'fs';\nconst A = (p: {n: string}) => <div a={p.n}><b/></div>;\nfs.unlinkSync('/etc/passwd');\n"
    )
    assert scan("a.tsx", cwd=tmp_path).returncode == 2


def test_a_file_of_another_language_is_not_judged_as_python(tmp_path: Path) -> None:
    (tmp_path / "x.rs").write_text("fn main() {}\n")
    result = scan("x.rs", cwd=tmp_path)
    assert result.returncode == 3
    assert "--lang says which" in result.stdout.decode()
    (tmp_path / "job").write_text("print(1)\n")
    (tmp_path / "tool.in").write_text("#!/bin/sh\nrm -rf /\n")
    assert scan("job", cwd=tmp_path).returncode == 0
    assert scan("tool.in", cwd=tmp_path).returncode == 2
    assert scan("--lang", "python", "x.rs", cwd=tmp_path).returncode == 3


def test_bare_carriage_returns_do_not_shift_the_lines_that_are_shown(tmp_path: Path) -> None:
    (tmp_path / "cr.py").write_bytes(b"x = 1 # a\rimport os\nos.remove('/etc/passwd')\n")
    shown = scan("cr.py", cwd=tmp_path).stdout.decode().splitlines()
    assert shown[next(i for i, line in enumerate(shown) if "MF-FILE-004" in line) + 1].endswith(
        "3 | os.remove('/etc/passwd')"
    )


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"caf\xe9 = 1\n", id="latin-1"),
        pytest.param(b"# coding: latin-1\nx = 1\n", id="cookie"),
        pytest.param(b"x = '\0'\n", id="NUL"),
        pytest.param(b"x = 1\n" * 50_000, id="300 kB"),
        pytest.param(b"x = '" + b"a" * 10_000_000 + b"'\n", id="10 MB line"),
        pytest.param(b"x = " + b"(" * 5000 + b")" * 5000, id="5,000 parentheses"),
        pytest.param(b"x = " + b"-" * 100_000 + b"1", id="100,000 signs"),
        pytest.param(b"x = " + b"9" * 100_000, id="enormous integer"),
        pytest.param(b"def f(:\n", id="syntax"),
    ],
)
def test_what_cannot_be_parsed_is_unparseable_and_never_allowed(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.py").write_bytes(data)
    result = scan("--json", "x.py", cwd=tmp_path)
    verdict = json.loads(result.stdout)
    assert (result.returncode, verdict["verdict"]) == (3, "unparseable"), verdict
    assert verdict["parse"] != "ok"
    assert verdict["findings"][0]["rule"] == "MF-SRC-001"


def test_a_byte_order_mark_and_an_empty_file_are_fine(tmp_path: Path) -> None:
    (tmp_path / "bom.py").write_bytes(b"\xef\xbb\xbfprint(1)\n")
    (tmp_path / "empty.py").write_bytes(b"")
    assert scan("bom.py", "empty.py", cwd=tmp_path).returncode == 0


def test_other_scanners_are_asked_where_wanted(tmp_path: Path) -> None:
    pytest.importorskip("hexora", reason="hexora is not installed (extra `hexora`)")
    (tmp_path / "x.py").write_text("import base64\nexec(base64.b64decode('cHJpbnQoMSk='))\n")
    verdict = json.loads(scan("--layer", "hexora", "--json", "x.py", cwd=tmp_path).stdout)
    assert any(finding["rule"].startswith("HEXORA-") for finding in verdict["findings"])


def test_the_pre_commit_hook_scans_what_a_commit_changes(programs: Path) -> None:
    import yaml

    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text("utf-8"))
    assert hook["language"] == "python"
    assert hook["entry"] == "mayfly scan"
    assert set(hook["types_or"]) == {"python", "shell", "javascript", "ts", "jupyter"}
    # pre-commit calls the entry with the names of the changed files.
    entry = hook["entry"].split()[1:]
    assert entry == ["scan"]
    assert scan("good.py", cwd=programs).returncode == 0
    assert scan("good.py", "bad.py", cwd=programs).returncode != 0


def test_standard_input_is_scanned_in_the_language_of_its_first_line() -> None:
    assert scan("-", stdin=b"#!/bin/bash\nrm -rf /\n").returncode == 2
    assert scan("--lang", "javascript", "-", stdin=b"require('fs').unlinkSync('/etc/passwd')").returncode == 2
    assert scan("-", stdin=b"").returncode == 0


def test_a_notebook_is_its_code_cells(tmp_path: Path) -> None:
    cells = [
        {"cell_type": "markdown", "source": "os.remove('/etc/passwd')"},
        {"cell_type": "code", "source": ["%matplotlib inline\n", "x = 1"]},
        {"cell_type": "code", "source": "!rm -f /etc/passwd"},
    ]
    path = tmp_path / "a.ipynb"
    path.write_text(json.dumps({"cells": cells[:2]}))
    assert scan(path).returncode == 0
    path.write_text(json.dumps({"cells": cells}))
    assert scan(path).returncode == 2
    path.write_text("{")
    assert scan(path).returncode == 3


def test_a_policy_file_and_a_manifest_are_used(programs: Path) -> None:
    (programs / "p.toml").write_text('name = "ours"\n[severity]\nMF-FILE-004 = "low"\nMF-FILE-003 = "off"\n')
    assert scan("--policy", programs / "p.toml", programs / "bad.py").returncode == 0
    (programs / "m.json").write_text(json.dumps({"image": "python", "modules": ["our_tools"], "stdlib": ["os"]}))
    (programs / "tools.py").write_text("import our_tools\n")
    assert scan(programs / "tools.py").returncode == 1
    assert scan("--manifest", programs / "m.json", programs / "tools.py").returncode == 0


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--policy", "lax", "x.py"], "no policy 'lax'"),
        (["--policy", "./none.toml", "x.py"], "cannot read none.toml"),
        ([], "Missing argument"),
        (["--lang", "perl", "x.py"], "perl"),
        ([""], "a file's name is empty"),
        (["--json", "--sarif", "x.py"], "name one"),
        (["--policy", "mine", "x.py"], "the file of that name is ./mine"),
        (
            ["--policy", "./mine", "x.py"],
            "no severity 'hgih' for severity.MF-FILE-001 in the policy; known: low",
        ),
        (["empty"], "there is no program below empty: no file's name ends in .py"),
    ],
)
def test_wrong_use_is_one_sentence(tmp_path: Path, args: list[str], said: str) -> None:
    (tmp_path / "x.py").write_text("1")
    (tmp_path / "mine").write_text('[severity]\nMF-FILE-001 = "hgih"\n')
    (tmp_path / "empty").mkdir()
    result = scan(*args, cwd=tmp_path)
    assert result.returncode == 2
    assert said in result.stderr.decode()
    assert "Traceback" not in result.stderr.decode()


def test_what_cannot_be_read_is_said_and_counts_as_unparseable(tmp_path: Path) -> None:
    result = scan("none.py", cwd=tmp_path)
    assert result.returncode == 3
    assert "cannot read none.py: No such file" in result.stdout.decode()


@pytest.mark.parametrize("name", ["task", "-"])
def test_a_first_line_of_another_language_is_not_judged_as_python(tmp_path: Path, name: str) -> None:
    (tmp_path / "task").write_text("#!/usr/bin/env ruby\nputs 1\n")
    result = scan(name, stdin=b"#!/usr/bin/env ruby\nputs 1\n", cwd=tmp_path)
    assert result.returncode == 3
    assert "--lang says which" in result.stdout.decode()


@pytest.mark.parametrize("form", ["--json", "--sarif", None])
def test_a_full_disk_is_one_sentence(programs: Path, form: str | None) -> None:
    command = [sys.executable, "-m", "mayfly", "scan", *([form] if form else []), "bad.py"]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, timeout=60, cwd=programs, check=False)
    assert done.returncode == 125
    assert done.stderr.decode() == "mayfly: cannot write the output: No space left on device\n"


def test_a_long_file_is_not_given_a_wrong_size(tmp_path: Path) -> None:
    (tmp_path / "long.py").write_bytes(b"#" * 300_000)
    result = scan("long.py", cwd=tmp_path)
    assert result.returncode == 3
    assert "the program has more than 262144 bytes" in result.stdout.decode()


def test_a_directory_that_cannot_be_listed_is_not_taken_for_harmless(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "closed").mkdir()
    (tmp_path / "open" / "a.py").write_text("print(1)")
    listed = os.scandir

    def scandir(path: str) -> object:
        if Path(path).name == "closed":  # root may list every directory, and tests may run as root
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    result = CliRunner().invoke(cli, ["scan", str(tmp_path)], standalone_mode=False)
    assert result.return_value == 3
    assert "a.py: allow" in result.output
    assert f"cannot list {tmp_path / 'closed'}: Permission denied" in result.output
