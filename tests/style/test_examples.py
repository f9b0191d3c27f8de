"""The examples are what the documents show: programs that the scan lets pass and that do what they say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mayfly.scan import scan
from mayfly.scan.policy import builtin_policy

EXAMPLES = Path(__file__).parents[2] / "examples"
GUESTS = ["fibonacci.py", "words.py", "inside.sh"]


@pytest.mark.parametrize("name", GUESTS)
def test_the_scan_lets_examples_pass(name: str) -> None:
    lang = "bash" if name.endswith(".sh") else "python"
    verdict = scan((EXAMPLES / name).read_bytes(), lang=lang, policy=builtin_policy("default"))
    assert verdict.verdict in {"allow", "review"}, verdict.findings


def test_every_example_is_known_here_or_uses_the_client() -> None:
    others = {path.name for path in EXAMPLES.iterdir() if path.is_file()} - set(GUESTS)
    assert not [name for name in others if "from mayfly import" not in (EXAMPLES / name).read_text()]


def _output(name: str, given: str = "") -> str:
    command = [sys.executable, str(EXAMPLES / name)]
    return subprocess.run(command, input=given, capture_output=True, text=True, timeout=30, check=True).stdout


def test_fibonacci_is_what_make_run_prints() -> None:
    assert _output("fibonacci.py") == "6765\n"


def test_words_are_counted() -> None:
    assert _output("words.py", "a b a") == "    2  a\n    1  b\n"
