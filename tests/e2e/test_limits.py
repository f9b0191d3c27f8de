"""Every limit, kept by a real machine: the status names it, and the node and its neighbours do not feel it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.conftest import LiveNode, Outcomes

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600), pytest.mark.usefixtures("settled")]

MANY_BYTES = 1 << 30
KEPT_BYTES = 100_000

STUBBORN = """
import signal, subprocess, time
for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGXCPU"):
    signal.signal(getattr(signal, name), signal.SIG_IGN)
subprocess.Popen(["bash", "-c", "trap '' TERM; while :; do :; done"])
print("ready", flush=True)
while True:
    time.sleep(1)
"""
SPINS = (
    "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nprint('spinning', flush=True)\nwhile True: pass\n"
)
EATS = "print('eating', flush=True)\nheld = []\nwhile True:\n    held.append(bytearray(b'x') * (1 << 20))\n"
FORKS = """
import os, time
children = 0
try:
    while children < 5000:
        if os.fork() == 0:
            time.sleep(600)
            os._exit(0)
        children += 1
except BlockingIOError:
    print("children", children)
"""
PRINTS = f"""
import os
piece = b"x" * 65536
left = {MANY_BYTES}
while left > 0:
    left -= os.write(1, piece[:left])
os.write(2, b"done")
"""
EXACT = f"import os\nos.write(1, b'y' * {KEPT_BYTES})\n"


@dataclass(frozen=True)
class Batch:
    results: Outcomes
    before: dict[str, Any]


@pytest.fixture(scope="module")
def batch(live_node: LiveNode, program: Any) -> Batch:
    hostile = {"policy": "research"}
    live_node.run_all({"first": program("")})
    before = live_node.rest()
    results = live_node.run_all(
        {
            "prints": program(PRINTS, {**hostile, "output_bytes": KEPT_BYTES, "timeout_s": 300}),
            "neighbour": program("print(sum(range(10**6)))"),
            "stubborn": program(STUBBORN, {**hostile, "timeout_s": 60}),
            "cpu": program(SPINS, {**hostile, "cpu_s": 10, "timeout_s": 300}),
            "memory": program(EATS, {**hostile, "mem_mib": 128, "timeout_s": 300}),
            "forks": program(FORKS, {**hostile, "pids": 24, "timeout_s": 300}),
            "exact": program(EXACT, {"output_bytes": KEPT_BYTES}),
            "no output": program("print('unheard')", {"output_bytes": 0}),
        }
    )
    return Batch(results, before)


def test_a_timeout_ends_what_ignores_signals(batch: Batch) -> None:
    result = batch.results["stubborn"]
    assert (result.status, result.exit_code, result.stdout) == ("timeout", 124, "ready\n")


def test_used_up_cpu_time_is_named(batch: Batch) -> None:
    result = batch.results["cpu"]
    assert (result.status, result.exit_code, result.stdout) == ("cpu_limit", 124, "spinning\n")
    assert result.usage.cpu_ms >= 10_000


def test_used_up_memory_is_named(batch: Batch) -> None:
    result = batch.results["memory"]
    assert (result.status, result.exit_code, result.stdout) == ("oom", 137, "eating\n")
    assert result.usage.mem_peak_bytes <= 128 << 20


def test_the_number_of_processes_ends_at_the_limit(batch: Batch) -> None:
    result = batch.results["forks"]
    assert result.status == "succeeded"
    assert 1 <= int(result.stdout.split()[1]) < 24


def test_a_gibibyte_of_output_is_cut_and_said_to_be(batch: Batch) -> None:
    result = batch.results["prints"]
    assert (result.status, result.truncated, result.stderr) == ("succeeded", True, "done")
    assert result.stdout == "x" * KEPT_BYTES
    assert result.usage.stdout_bytes == MANY_BYTES


def test_output_of_exactly_the_limit_is_whole(batch: Batch) -> None:
    result = batch.results["exact"]
    assert (result.stdout, result.truncated) == ("y" * KEPT_BYTES, False)


def test_a_limit_of_no_output_keeps_none(batch: Batch) -> None:
    result = batch.results["no output"]
    assert (result.status, result.stdout, result.truncated) == ("succeeded", "", True)


def test_a_neighbour_of_all_these_is_unharmed(batch: Batch) -> None:
    result = batch.results["neighbour"]
    assert (result.status, result.stdout) == ("succeeded", "499999500000\n")


def test_the_node_holds_no_more_than_before(batch: Batch, live_node: LiveNode) -> None:
    live_node.assert_flat(batch.before)
