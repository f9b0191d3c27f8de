"""The benchmark's arithmetic, its report, and what it says where it cannot measure."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from mayfly.bench import run as bench_run
from mayfly.bench.compare import compare, permutation_p
from mayfly.bench.guest import GUEST_METRICS
from mayfly.bench.metrics import METRICS, Metric, Samples, chosen, figure, percentile
from mayfly.bench.report import BenchHost, make_report, table
from mayfly.cli import cli
from mayfly.errors import HostError, InvalidRequestError

if TYPE_CHECKING:
    from pathlib import Path

PROMISED = {
    "clone_ready_ms", "clone_rate_per_s", "live_clones", "overhead_mib_per_vm", "vmm_private_mib", "load_ms",
    "boot_ms", "first_run_ms", "claim_ms", "execution_ms", "api_overhead_ms", "guest_cpu_ratio", "destroy_ms",
    "post_restore_ms",
}  # fmt: skip
FACTS = BenchHost(
    processors=2,
    mem_mib=1024,
    kernel="6.1",
    processor="a processor",
    firecracker="1.12.1",
    load_before=0.5,
    kinds={},
    notes={},
    not_measured={},
)
FIELDS = {"id", "unit", "target", "value", "p50", "p95", "p99", "n", "holds"}


def test_every_promised_metric_is_there_once() -> None:
    ids = [metric.id for metric in METRICS]
    assert len(ids) == len(set(ids))
    assert set(ids) >= PROMISED
    assert {metric.id for metric in METRICS if metric.part == "guest"} == GUEST_METRICS


def test_an_unknown_id_is_refused_with_the_list_of_those_there_are() -> None:
    with pytest.raises(InvalidRequestError, match=r"no metric 'boot'; there are clone_ready_ms, .*boot_ms"):
        chosen(["load_ms", "boot"])
    assert [metric.id for metric in chosen(["load_ms", "load_ms"])] == ["load_ms"]
    assert chosen([]) == METRICS


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=300), st.integers(1, 100))
def test_a_percentile_is_a_value_that_so_many_are_not_above(values: list[float], percent: int) -> None:
    found = percentile(values, percent)
    assert found in values
    assert sum(value <= found for value in values) * 100 >= percent * len(values)
    assert all(
        sum(value <= lower for value in values) * 100 < percent * len(values) for lower in values if lower < found
    )


def _metric(**bounds: float) -> Metric:
    return Metric(id="x_ms", unit="ms", part="control", about="", **bounds)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("metric", "values", "value", "holds"),
    [
        (_metric(value_max=2), [1, 2, 3], None, True),
        (_metric(value_max=2), [1, 3, 3], None, False),
        (_metric(value_max=2), [10, 30, 30], 2, True),
        (_metric(value_min=400), [500, 300], 399, False),
        (_metric(p99_max=50), [1] * 98 + [51] * 2, None, False),
        (_metric(p99_per_p50_max=2), [10, 10, 20], None, True),
        (_metric(value_max=20, p99_per_p50_max=2), [10, 10, 21], None, False),
        (_metric(), [1], None, None),
        (Metric(id="x", unit="", part="guest", about="", value_max=1, judged_on="emulated host"), [9], None, None),
    ],
)
def test_a_target_holds_when_every_bound_does(
    metric: Metric, values: list[float], value: float | None, holds: bool | None
) -> None:
    assert figure(metric, Samples(values=values, kind="software KVM", value=value)).holds is holds


def test_too_few_samples_are_shown_and_not_judged() -> None:
    line = figure(_metric(value_max=2), Samples(values=[1.0], kind="software KVM", judged=False))
    assert (line.value, line.holds) == (1.0, None)


def test_what_was_not_measured_is_listed_with_why() -> None:
    metrics = chosen(["load_ms", "boot_ms", "claim_ms"])
    found = {"load_ms": Samples(values=[8.0, 9.0], kind="software KVM", note="two only")}
    report = make_report(metrics, found, {"boot_ms": "no guest runs here"}, FACTS)
    decoded = json.loads(msgspec.json.encode(report))
    assert set(decoded) == {"host", "metrics"}
    assert [set(line) for line in decoded["metrics"]] == [FIELDS] * 3
    assert decoded["host"]["kinds"] == {"load_ms": "software KVM"}
    assert decoded["host"]["not_measured"] == {"boot_ms": "no guest runs here", "claim_ms": "nothing was measured"}
    text = table(report)
    assert re.search(r"^load_ms +8 ms +8 +9 +9 +2 +software KVM$", text, re.MULTILINE)
    assert re.search(r"^boot_ms .*not measured$", text, re.MULTILINE)
    assert "(not measured: no guest runs here)" in text
    assert "(two only)" in text


def test_the_command_prints_one_object_and_names_what_is_in_the_way(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MAYFLY_HOME", str(tmp_path))
    monkeypatch.setattr(bench_run, "control_problem", lambda: "making machines needs root: Firecracker's jailer does")
    done = CliRunner().invoke(cli, ["bench", "--only", "load_ms", "--json"])
    assert done.exit_code == 0
    decoded = json.loads(done.stdout)
    assert decoded["host"]["not_measured"] == {"load_ms": "making machines needs root: Firecracker's jailer does"}
    assert decoded["metrics"][0]["value"] is None


def test_missing_artefacts_are_named_for_the_metrics_that_need_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MAYFLY_HOME", str(tmp_path))
    monkeypatch.setattr(bench_run, "kvm_answer", lambda _: (_ for _ in ()).throw(HostError("nothing is set up")))
    done = CliRunner().invoke(cli, ["bench", "--only", "claim_ms"])
    assert "claim_ms: the pool's answer where a primed clone waits (not measured: nothing is set up)" in done.stdout
    assert os.listdir(tmp_path) == []


def test_figures_that_are_clearly_worse_are_told_from_chance() -> None:
    before = [10.0, 10.4, 9.8, 10.1, 10.2, 9.9, 10.3, 10.0]
    after = [value * 1.3 for value in before]
    assert compare("destroy_ms", before, after).verdict == "worse"
    assert compare("destroy_ms", after, before).verdict == "better"
    assert compare("clone_rate_per_s", before, after).verdict == "better", "more a second is better"
    assert compare("guest_cpu_ratio", after, before).verdict == "worse", "a smaller ratio is worse"
    assert compare("destroy_ms", before, [value * 1.01 for value in before]).verdict == "same", "too small to matter"
    assert compare("destroy_ms", [8.0, 12, 9, 15, 10], [9.0, 13, 8, 16, 12]).verdict == "same", "chance"


@given(
    st.lists(st.floats(0.1, 1e6), min_size=1, max_size=6),
    st.lists(st.floats(0.1, 1e6), min_size=1, max_size=6),
)
@settings(max_examples=15, deadline=None)
def test_the_test_of_chance_gives_a_probability_that_does_not_depend_on_the_order(
    one: list[float], other: list[float]
) -> None:
    p = permutation_p(one, other)
    assert 0 < p <= 1
    assert permutation_p(one, list(one)) > 0.05
