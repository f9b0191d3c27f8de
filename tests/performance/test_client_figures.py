"""What the client costs before its first request. Run with `-s`: figures are printed, none is judged."""

from __future__ import annotations

import statistics
import subprocess
import sys

import pytest

_RUNS = 15
_TIMED = "import time; start = time.perf_counter(); {}; print((time.perf_counter() - start) * 1000)"


@pytest.mark.parametrize(
    "statement",
    [
        "import mayfly",
        "import mayfly; mayfly.run",
        "import mayfly; mayfly.Sandbox",
        "import mayfly; mayfly.AsyncSandbox",
    ],
)
def test_importing_the_client(statement: str) -> None:
    command = [sys.executable, "-c", _TIMED.format(statement)]
    took = [float(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout) for _ in range(_RUNS)]
    line = f"\n{statement}: median {statistics.median(took):.0f} ms, fastest {min(took):.0f} ms of {_RUNS}"
    print(line)  # noqa: T201 - printing figures is what it is for
