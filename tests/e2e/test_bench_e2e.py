"""The benchmark's guest metrics, in real microVMs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from mayfly.host.paths import StatePaths


@pytest.mark.e2e
@pytest.mark.timeout(500)
def test_guests_are_measured_where_they_run_and_nothing_is_left(ready_state: StatePaths) -> None:
    command = [sys.executable, "-m", "mayfly", "bench", "--quick", "--json", "--only", "claim_ms"]
    environment = {**os.environ, "MAYFLY_HOME": str(ready_state.root)}
    done = subprocess.run(command, capture_output=True, timeout=480, check=True, env=environment)
    report = json.loads(done.stdout)
    assert report["host"]["not_measured"] == {}
    assert report["host"]["kinds"]["claim_ms"] in {"emulated host", "hardware KVM"}
    [line] = report["metrics"]
    assert line["n"] >= 3
    assert 0 < line["p50"] <= line["p99"]
    assert not list(ready_state.build.glob("bench-*"))
    assert not (ready_state.root / "bench").exists()
