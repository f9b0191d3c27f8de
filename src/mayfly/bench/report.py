"""A finished measurement: the object that `--json` prints, and the table."""

from __future__ import annotations

import msgspec

from mayfly.bench.metrics import METRICS, Figure, Metric, Samples, figure

__all__ = ["BenchHost", "Report", "make_report", "table"]

_HEADINGS = ("metric", "target", "value", "p50", "p95", "p99", "n", "holds", "host")
_NUMBERS = 7
"""Columns from the third to this one are numbers and stand to the right."""


class BenchHost(msgspec.Struct, frozen=True, kw_only=True):
    """What the figures were taken on. The last three are by metric id."""

    processors: int
    mem_mib: int
    kernel: str
    processor: str
    firecracker: str | None
    load_before: float
    """Load average of a minute when the measuring began: other work spoils figures."""
    kinds: dict[str, str]
    notes: dict[str, str]
    not_measured: dict[str, str]
    """Why."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What `mayfly bench` found."""

    host: BenchHost
    metrics: list[Figure]


def make_report(
    metrics: tuple[Metric, ...], found: dict[str, Samples], missing: dict[str, str], facts: BenchHost
) -> Report:
    """Every one of `metrics` is in it: with its figure, or with why there is none."""
    unexplained = {metric.id: "nothing was measured" for metric in metrics if metric.id not in found}
    host = msgspec.structs.replace(
        facts,
        kinds={name: samples.kind for name, samples in found.items()},
        notes={name: samples.note for name, samples in found.items() if samples.note},
        not_measured=unexplained | {name: why for name, why in missing.items() if name in unexplained},
    )
    return Report(host=host, metrics=[figure(metric, found.get(metric.id)) for metric in metrics])


def table(report: Report) -> str:
    """The report for people: a line a metric, then what is to be known about them."""
    host = report.host
    rows = [_HEADINGS, *(_row(line, host) for line in report.metrics)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    lines = [
        "  ".join(
            cell.rjust(width) if 2 <= column < _NUMBERS else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    about = {metric.id: metric.about for metric in METRICS}
    lines += ["", f"{host.processors} processors ({host.processor}), {host.mem_mib} MiB, Linux {host.kernel}"]
    lines[-1] += f", Firecracker {host.firecracker}" if host.firecracker else ""
    lines += [f"load average at the start {host.load_before:.2f}", ""]
    for line in report.metrics:
        said = host.not_measured.get(line.id, host.notes.get(line.id, ""))
        mark = "not measured: " if line.id in host.not_measured else ""
        lines.append(f"{line.id}: {about[line.id]}" + (f" ({mark}{said})" if said else ""))
    return "\n".join(lines)


def _row(line: Figure, host: BenchHost) -> tuple[str, ...]:
    numbers = (line.value, line.p50, line.p95, line.p99)
    holds = {True: "yes", False: "NO", None: ""}[line.holds]
    unit = f" {line.unit}" if line.unit and line.value is not None else ""
    return (
        line.id,
        line.target or "",
        *(
            ("-" if number is None else f"{number:g}") + (unit if place == 0 else "")
            for place, number in enumerate(numbers)
        ),
        str(line.n or "-"),
        holds,
        host.kinds.get(line.id, "not measured"),
    )
