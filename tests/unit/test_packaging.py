"""What is shipped for packagers and administrators."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from mayfly.cli import cli

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "packaging" / "mayfly.service"
PROGRAM = "/opt/mayfly/.venv/bin/mayfly"


def test_systemd_finds_no_fault_in_the_unit(tmp_path: Path) -> None:
    tool = shutil.which("systemd-analyze")
    if tool is None:
        pytest.skip("systemd-analyze is not installed")
    unit = tmp_path / "mayfly.service"
    unit.write_text(UNIT.read_text().replace(PROGRAM, sys.executable))  # what it starts must be there
    done = subprocess.run([tool, "verify", "--man=no", unit], capture_output=True, text=True, check=False, timeout=60)
    assert [line for line in done.stderr.splitlines() if "mayfly" in line] == []
    assert done.returncode == 0


def test_the_commands_of_the_unit_are_ones_that_there_are() -> None:
    lines = re.findall(rf"^Exec\w+={re.escape(PROGRAM)} (.+)$", UNIT.read_text(), re.MULTILINE)
    assert len(lines) == 2
    for line in lines:
        command, *words = line.split()
        shown = CliRunner().invoke(cli, [command, "--help"]).output
        for option in (word for word in words if word.startswith("--")):
            assert option.removeprefix("--no-") in shown


def test_the_page_about_the_unit_names_its_places() -> None:
    page, unit = (ROOT / "docs/system-service.md").read_text(), UNIT.read_text()
    for place in ("/opt/mayfly", "/var/lib/mayfly", "/run/mayfly/node.sock", "mayfly.service"):
        assert place in page
    assert "--socket /run/mayfly/node.sock --socket-group mayfly" in unit


def test_the_janitor_of_a_killed_node_is_not_killed_with_it() -> None:
    assert "\nKillMode=process\n" in UNIT.read_text()
