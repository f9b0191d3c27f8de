"""One benchmark: what can be measured here is, what cannot is explained."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING

import anyio.to_thread

from mayfly.bench.api import measure_api
from mayfly.bench.control import ControlPlan, measure_control
from mayfly.bench.emulated import measure_emulated
from mayfly.bench.guest import measure_guest
from mayfly.bench.report import BenchHost, make_report
from mayfly.bench.yard import control_problem, open_yard
from mayfly.errors import MayflyError
from mayfly.node.bringup import kvm_answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from mayfly.bench.metrics import Metric, Samples
    from mayfly.bench.report import Report
    from mayfly.host.paths import StatePaths

__all__ = ["run_benchmark"]

_CONTROL_MEM_MIB = 128


class _Course:
    """What a benchmark has found so far."""

    def __init__(self) -> None:
        self.found: dict[str, Samples] = {}
        self.missing: dict[str, str] = {}
        self.firecracker: str | None = None

    def miss(self, ids: frozenset[str], why: str) -> None:
        self.missing |= dict.fromkeys(ids - set(self.found), why)


async def run_benchmark(
    paths: StatePaths, metrics: tuple[Metric, ...], *, quick: bool, say: Callable[[str], None]
) -> Report:
    """Measure these metrics. Nothing is left behind, however it ends; `say` hears what is being done."""
    facts = _facts()
    course = _Course()
    parts = {
        part: frozenset(metric.id for metric in metrics if metric.part == part) for part in ("control", "guest", "api")
    }
    if wanted := parts["control"]:
        await _control(paths, wanted, course, quick=quick, say=say)
    if wanted := parts["guest"]:
        await _guest(paths, wanted, course, quick=quick, say=say)
    if wanted := parts["api"]:
        await _api(wanted, course, quick=quick, say=say)
    return make_report(metrics, course.found, course.missing, facts(course.firecracker))


async def _control(
    paths: StatePaths, wanted: frozenset[str], course: _Course, *, quick: bool, say: Callable[[str], None]
) -> None:
    if problem := control_problem():
        course.miss(wanted, problem)
        return
    try:
        async with open_yard(paths, mem_mib=_CONTROL_MEM_MIB) as yard:
            course.firecracker = yard.firecracker
            course.found |= await measure_control(yard, wanted, ControlPlan(quick=quick), say)
    except MayflyError as error:
        course.miss(wanted, str(error))


async def _guest(
    paths: StatePaths, wanted: frozenset[str], course: _Course, *, quick: bool, say: Callable[[str], None]
) -> None:
    """On this machine where guests run here, else in an emulated host."""
    try:
        answer = await anyio.to_thread.run_sync(kvm_answer, paths)
        if answer.usable:
            found, missing = await measure_guest(paths, "kvm", wanted, quick=quick, say=say)
        else:
            say(f"guests are measured in an emulated host: {answer.reason}")
            findings = await measure_emulated(paths, wanted, quick=quick, say=say)
            found, missing = findings.found, findings.missing
    except MayflyError as error:
        course.miss(wanted, str(error))
    else:
        course.found |= found
        course.missing |= missing


async def _api(wanted: frozenset[str], course: _Course, *, quick: bool, say: Callable[[str], None]) -> None:
    try:
        course.found |= await measure_api(wanted, quick=quick, say=say)
    except MayflyError as error:
        course.miss(wanted, str(error))


def _facts() -> Callable[[str | None], BenchHost]:
    """The machine's facts, its load taken now."""
    load = os.getloadavg()[0]

    def complete(firecracker: str | None) -> BenchHost:
        return BenchHost(
            processors=len(os.sched_getaffinity(0)),
            mem_mib=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // (1024 * 1024),
            kernel=platform.release(),
            processor=_processor(),
            firecracker=firecracker,
            load_before=round(load, 2),
            kinds={},
            notes={},
            not_measured={},
        )

    return complete


def _processor() -> str:
    try:
        with Path("/proc/cpuinfo").open() as file:
            lines = file.read(16384).splitlines()
    except OSError:
        lines = []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
