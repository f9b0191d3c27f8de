"""What is measured: each metric with its unit, its target, and how measurements become a figure that is judged."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import msgspec

from mayfly.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["METRICS", "Figure", "HostKind", "Metric", "Samples", "chosen", "figure", "percentile"]

Part = Literal["control", "guest", "api"]
HostKind = Literal["hardware KVM", "software KVM", "emulated host", "host processes"]


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is measured. `part` says what it needs: machines that load, guests that run, or neither.

    The target holds when the value is at most `value_max`, at least `value_min`, p99 at most `p99_max` and at most
    `p99_per_p50_max` times p50, as far as each is given; and only on a host of kind `judged_on`, where that is given.
    """

    id: str
    unit: str
    part: Part
    about: str
    value_max: float | None = None
    value_min: float | None = None
    p99_max: float | None = None
    p99_per_p50_max: float | None = None
    value_is: str = "p50"
    judged_on: HostKind | None = None

    @property
    def target(self) -> str | None:
        """The target in words; None where there is none."""
        words = []
        if self.value_max is not None:
            words.append(f"{self.value_is} ≤ {self.value_max:g}")
        if self.value_min is not None:
            words.append(f"{self.value_is} ≥ {self.value_min:g}")
        if self.p99_max is not None:
            words.append(f"p99 ≤ {self.p99_max:g}")
        if self.p99_per_p50_max is not None:
            words.append(f"p99 ≤ {self.p99_per_p50_max:g} p50s")
        return ", ".join(words) or None


class Samples(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured of one metric. `value` is what its target speaks of; None takes the median."""

    values: list[float]
    kind: HostKind
    value: float | None = None
    n: int | None = None
    note: str = ""
    judged: bool = True
    """False where too little was done for a judgement, as with `--quick`."""


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the report. What is None was not measured, or is not judged."""

    id: str
    unit: str
    target: str | None
    value: float | None = None
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    n: int = 0
    holds: bool | None = None


METRICS = (
    Metric(
        id="clone_ready_ms",
        unit="ms",
        part="control",
        about="a clone restored and paused: jail, jailed VMM, load; one after the other",
        value_is="p50 less load_ms p50",
        value_max=2,
        p99_per_p50_max=2,
    ),
    Metric(
        id="clone_cold_ms",
        unit="ms",
        part="control",
        about="the same with no jailed VMM made ahead",
    ),
    Metric(id="load_ms", unit="ms", part="control", about="Firecracker's answer to the load alone, of the same clones"),
    Metric(
        id="clone_rate_per_s",
        unit="1/s",
        part="control",
        about="clones made a second, from nothing, jailed and with control groups",
        value_is="mean",
        value_min=400,
    ),
    Metric(
        id="clone_turnover_per_s",
        unit="1/s",
        part="control",
        about="the same with the oldest destroyed meanwhile",
        value_is="mean",
    ),
    Metric(
        id="live_clones",
        unit="clones",
        part="control",
        about="clones alive at once",
        value_is="24 GiB:",
        value_min=2000,
    ),
    Metric(
        id="overhead_mib_per_vm",
        unit="MiB",
        part="control",
        about="memory of the system that each of those takes, all told",
        value_is="mean",
        value_max=1.0,
    ),
    Metric(id="vmm_private_mib", unit="MiB", part="control", about="private memory of each of their VMMs"),
    Metric(
        id="destroy_ms",
        unit="ms",
        part="control",
        about="killed, awaited, jail and control group removed",
        p99_max=50,
    ),
    Metric(id="boot_ms", unit="ms", part="guest", about="InstanceStart to the agent's first answer"),
    Metric(
        id="boot_ratio",
        unit="",
        part="guest",
        about="boot_ms ÷ that of the same guest with Debian's cloud kernel, in turns",
        value_max=0.5,
        judged_on="emulated host",
    ),
    Metric(
        id="boot_init_ms",
        unit="ms",
        part="guest",
        about="InstanceStart to the kernel's start of the first user process, by its console",
    ),
    Metric(
        id="first_run_ms",
        unit="ms",
        part="guest",
        about="a loaded clone: resumed, greeted, first program's result",
        value_max=200,
        judged_on="emulated host",
    ),
    Metric(id="claim_ms", unit="ms", part="guest", about="the pool's answer where a primed clone waits"),
    Metric(
        id="execution_ms",
        unit="ms",
        part="guest",
        about="a whole execution through the HTTP API where a primed clone waits",
        value_max=60,
        judged_on="emulated host",
    ),
    Metric(
        id="guest_cpu_ratio",
        unit="",
        part="guest",
        about="time of a CPU-bound program outside ÷ inside",
        value_min=0.97,
    ),
    Metric(id="post_restore_ms", unit="ms", part="guest", about="a program touches 128 MiB right after a restore"),
    Metric(
        id="api_overhead_ms",
        unit="ms",
        part="api",
        about="an execution through the HTTP API less its guest's time",
        value_max=2,
        p99_max=8,
    ),
    Metric(
        id="api_executions_per_core_s",
        unit="1/s",
        part="api",
        about="executions a second that one processor's worth of the node's time is enough for",
        value_is="mean",
        value_min=600,
    ),
)
"""All of them, in the order of the report."""

_BY_ID = {metric.id: metric for metric in METRICS}


def chosen(ids: Iterable[str]) -> tuple[Metric, ...]:
    """The metrics of these ids, all where none is given. InvalidRequestError that lists the ids for an unknown one."""
    wanted = set(ids)
    if unknown := sorted(wanted - set(_BY_ID)):
        known = ", ".join(_BY_ID)
        raise InvalidRequestError(f"there is no metric {unknown[0]!r}; there are {known}", field="only")
    return tuple(metric for metric in METRICS if not wanted or metric.id in wanted)


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` of all are not above (nearest rank). ValueError when there is none."""
    if not values:
        raise ValueError("there are no values")
    rank = max(1, math.ceil(len(values) * percent / 100))
    return sorted(values)[rank - 1]


def figure(metric: Metric, samples: Samples | None) -> Figure:
    """A line of the report; an empty one for what was not measured."""
    if samples is None or not samples.values:
        return Figure(id=metric.id, unit=metric.unit, target=metric.target)
    p50, p95, p99 = (percentile(samples.values, percent) for percent in (50, 95, 99))
    value = p50 if samples.value is None else samples.value
    judged = samples.judged and metric.judged_on in (None, samples.kind)
    return Figure(
        id=metric.id,
        unit=metric.unit,
        target=metric.target,
        value=_short(value),
        p50=_short(p50),
        p95=_short(p95),
        p99=_short(p99),
        n=len(samples.values) if samples.n is None else samples.n,
        holds=_holds(metric, value, p50, p99) if judged else None,
    )


def _holds(metric: Metric, value: float, p50: float, p99: float) -> bool | None:
    checks = [
        bound is None or fine
        for bound, fine in (
            (metric.value_max, value <= (metric.value_max or 0)),
            (metric.value_min, value >= (metric.value_min or 0)),
            (metric.p99_max, p99 <= (metric.p99_max or 0)),
            (metric.p99_per_p50_max, p99 <= p50 * (metric.p99_per_p50_max or 0)),
        )
    ]
    return None if metric.target is None else all(checks)


def _short(number: float) -> float:
    """Four significant digits: no measurement here has more."""
    return float(f"{number:.4g}")
