"""`mayfly bench` on this machine: real machines where /dev/kvm takes them, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from mayfly.host.cgroups import detect_cgroups
from mayfly.vmm.probe import device_problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from mayfly.host.paths import StatePaths

BENCH = [sys.executable, "-m", "mayfly", "bench", "--quick", "--json"]
UIDS = range(1_000_000, 1_000_000 + 65_536)


@pytest.fixture
def state(ready_state: StatePaths, own_state_of: Callable[[StatePaths], StatePaths]) -> StatePaths:
    if os.geteuid() != 0:
        pytest.skip("root, for the jailer")
    if problem := device_problem():
        pytest.skip(f"a /dev/kvm that takes VMs: {problem}")
    return own_state_of(ready_state)


def machines() -> list[str]:
    """Processes that run as a user only the benchmark's machines have."""
    found = []
    for name in os.listdir("/proc"):
        try:
            if name.isdigit() and os.stat(f"/proc/{name}").st_uid in UIDS:  # noqa: PTH116
                found.append(name)
        except OSError:
            continue
    return found


def assert_nothing_is_left(state: StatePaths) -> None:
    deadline = time.monotonic() + 5
    while machines() and time.monotonic() < deadline:  # the killed are collected by the first process in its own time
        time.sleep(0.02)
    assert machines() == []
    assert not (state.root / "bench").exists()
    assert not list(state.build.glob("bench-*"))
    for mount in set(detect_cgroups().mounts.values()):
        assert not list(mount.glob("mayfly-bench-*"))


@pytest.mark.kvm
@pytest.mark.root
def test_the_control_plane_is_measured_and_nothing_is_left(state: StatePaths) -> None:
    only = ["--only", "clone_ready_ms", "--only", "load_ms", "--only", "destroy_ms", "--only", "vmm_private_mib"]
    environment = {**os.environ, "MAYFLY_HOME": str(state.root)}
    done = subprocess.run([*BENCH, *only], capture_output=True, timeout=110, check=True, env=environment)
    report = json.loads(done.stdout)
    assert [line["id"] for line in report["metrics"]] == [
        "clone_ready_ms",
        "load_ms",
        "vmm_private_mib",
        "destroy_ms",
    ]
    assert all(0 < line["p50"] <= line["p95"] <= line["p99"] for line in report["metrics"])
    assert set(report["host"]["kinds"].values()) <= {"software KVM", "hardware KVM"}
    assert_nothing_is_left(state)


@pytest.mark.kvm
@pytest.mark.root
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGKILL])
def test_a_benchmark_that_is_stopped_leaves_nothing(state: StatePaths, signum: int) -> None:
    environment = {**os.environ, "MAYFLY_HOME": str(state.root)}
    process = subprocess.Popen(
        [*BENCH, "--only", "clone_rate_per_s"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )
    with process:
        deadline = time.monotonic() + 30
        while len(machines()) < 5 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert process.poll() is None, "machines were being made"
        process.send_signal(signum)
        process.wait(30)
    if signum == signal.SIGINT:
        assert process.returncode == 130
    else:  # its janitor removes the machines; the next benchmark the snapshot
        while machines() and time.monotonic() < deadline + 30:
            time.sleep(0.05)
        only = ["--only", "destroy_ms"]
        subprocess.run([*BENCH, *only], capture_output=True, timeout=60, check=True, env=environment)
    assert_nothing_is_left(state)


def test_the_api_is_measured_with_stand_ins_and_says_so() -> None:
    done = subprocess.run([*BENCH, "--only", "api_overhead_ms"], capture_output=True, timeout=110, check=True)
    report = json.loads(done.stdout)
    assert report["host"]["kinds"] == {"api_overhead_ms": "host processes"}
    assert report["metrics"][0]["n"] == 30


def test_an_unknown_id_is_wrong_use_and_lists_the_known_ones() -> None:
    done = subprocess.run([*BENCH, "--only", "speed"], capture_output=True, timeout=60, check=False, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no metric 'speed'" in done.stderr
    assert "clone_ready_ms, " in done.stderr
