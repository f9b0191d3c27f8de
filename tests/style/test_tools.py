"""The linter, the formatter, the type checker and the shell agree with the whole repository."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


def _run(root: Path, *command: str) -> tuple[int, str]:
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300, check=False)
    return done.returncode, (done.stdout + done.stderr)[-6000:]


def test_the_linter_finds_nothing(root: Path) -> None:
    code, said = _run(root, sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format", "concise", ".")
    assert code == 0, said


def test_the_formatter_changes_nothing(root: Path) -> None:
    code, said = _run(root, sys.executable, "-m", "ruff", "format", "--no-cache", "--check", ".")
    assert code == 0, said


@pytest.mark.timeout(300)
def test_the_type_checker_finds_nothing(root: Path) -> None:
    code, said = _run(root, sys.executable, "-m", "mypy")
    assert code == 0, said


def test_every_exception_of_the_linter_has_its_reason(root: Path) -> None:
    ignored = (root / "pyproject.toml").read_text().partition("ignore = [\n")[2].partition("\n]")[0].splitlines()
    assert len(ignored) > 10
    assert not [line for line in ignored if "# " not in line]


def test_shell_scripts_parse(files: list[Path], root: Path) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash")
    scripts = [
        path for path in files if path.suffix == ".sh" or path.read_bytes()[:64].startswith(b"#!/usr/bin/env bash")
    ]
    assert len(scripts) > 1
    wrong = {str(path): said for path in scripts for code, said in [_run(root, bash, "-n", str(path))] if code}
    assert not wrong
