"""The control plane's metrics: machines restored, counted, weighed and destroyed. No guest needs to run for them."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from mayfly.bench.metrics import METRICS, Samples, percentile
from mayfly.errors import MayflyError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from mayfly.bench.yard import Yard
    from mayfly.vmm.machine import FirecrackerMachine

__all__ = ["ControlPlan", "measure_control"]

_WORKERS_PER_CPU = 4
_BATCH = 400
_TURNOVER_LIVE = 64
"""So many clones live while turnover is measured; the oldest is destroyed for each that is made beyond."""
_LIVE_PER_MIB = 2000 / (22 * 1024)
"""The target's 2,000 on a machine called 24 GiB, whose kernel leaves some 23 to the system; scaled for smaller ones."""
_LIVE_MARGIN = 1.02
_RESERVE_MIB = 768
_WEIGHED_MAX = 64
_SETTLE_S = 2.0
"""So long the kernel gets to give back what machines had."""
_ALL = frozenset(metric.id for metric in METRICS if metric.part == "control")


class ControlPlan:
    """How much is measured: fully, or quickly for a look."""

    def __init__(self, *, quick: bool) -> None:
        self.quick = quick
        self.clones = 40 if quick else 400
        self.rate_s = 4.0 if quick else 22.0
        self.live = 100 if quick else None


async def measure_control(
    yard: Yard, wanted: frozenset[str], plan: ControlPlan, say: Callable[[str], None]
) -> dict[str, Samples]:
    """The wanted ones of these metrics, by id."""
    found: dict[str, Samples] = {}
    if wanted & {"clone_ready_ms", "load_ms", "destroy_ms"}:
        say(f"{plan.clones} clones, one after the other")
        found |= await _one_by_one(yard, plan)
    if "clone_cold_ms" in wanted:
        say(f"{plan.clones} clones with nothing made ahead")
        found["clone_cold_ms"] = await _cold(yard, plan)
    if "clone_rate_per_s" in wanted:
        say(f"clones for {plan.rate_s:g} s")
        found["clone_rate_per_s"] = await _rate(yard, plan)
    if "clone_turnover_per_s" in wanted:
        say(f"clones made and destroyed for {plan.rate_s:g} s")
        found["clone_turnover_per_s"] = await _turnover(yard, plan)
    if wanted & {"live_clones", "overhead_mib_per_vm", "vmm_private_mib"}:
        say("clones alive at once")
        found |= await _many(yard, plan)
    return {name: samples for name, samples in found.items() if name in wanted & _ALL}


async def _one_by_one(yard: Yard, plan: ControlPlan) -> dict[str, Samples]:
    ready, load, destroyed = [], [], []
    for _ in range(plan.clones):
        await yard.launcher.filled()  # an answer's time, not that of making ready for the next
        started = time.perf_counter()
        async with _clone(yard) as clone:
            ready.append(_ms_since(started))
            load.append(clone.load_ms)
            started = time.perf_counter()
            await clone.destroy()
            destroyed.append(_ms_since(started))
    less_load = percentile(ready, 50) - percentile(load, 50)
    return {
        "clone_ready_ms": Samples(values=ready, kind=yard.kind, value=less_load, note="a jailed VMM stood by"),
        "load_ms": Samples(values=load, kind=yard.kind),
        "destroy_ms": Samples(values=destroyed, kind=yard.kind),
    }


async def _cold(yard: Yard, plan: ControlPlan) -> Samples:
    values = []
    for _ in range(plan.clones):
        started = time.perf_counter()
        async with _clone(yard, cold=True):
            values.append(_ms_since(started))
    return Samples(values=values, kind=yard.kind)


async def _rate(yard: Yard, plan: ControlPlan) -> Samples:
    """Clones a second of making them, in batches; a batch is destroyed before the next, off the clock."""
    rates: list[float] = []
    made, spent_s = 0, 0.0
    while spent_s < plan.rate_s:
        live: deque[FirecrackerMachine] = deque()
        try:
            started = time.perf_counter()
            await _load_batch(yard, live)
            took_s = time.perf_counter() - started
        finally:
            await _destroy_all(live)
        rates.append(_BATCH / took_s)
        made += _BATCH
        spent_s += took_s
    note = f"{_WORKERS_PER_CPU} at a time a processor, batches of {_BATCH}; destroying them is not in the time"
    return Samples(values=rates, kind=yard.kind, value=made / spent_s, n=made, note=note, judged=not plan.quick)


async def _load_batch(yard: Yard, live: deque[FirecrackerMachine]) -> None:
    turns = iter(range(_BATCH))

    async def worker() -> None:
        for _ in turns:
            live.append(await yard.load(cold=True))

    async with anyio.create_task_group() as group:
        for _ in range(_WORKERS_PER_CPU * (os.cpu_count() or 1)):
            group.start_soon(worker)


async def _turnover(yard: Yard, plan: ControlPlan) -> Samples:
    """Clones a second made and destroyed, over the whole time; the percentiles are of its single seconds."""
    live: deque[FirecrackerMachine] = deque()
    made: list[float] = []
    started = time.perf_counter()
    until = started + plan.rate_s

    async def worker() -> None:
        while time.perf_counter() < until:
            live.append(await yard.load(cold=True))
            made.append(time.perf_counter())
            if len(live) > _TURNOVER_LIVE:
                await live.popleft().destroy()

    try:
        async with anyio.create_task_group() as group:
            for _ in range(_WORKERS_PER_CPU * (os.cpu_count() or 1)):
                group.start_soon(worker)
        took_s = time.perf_counter() - started
    finally:
        await _destroy_all(live)
    seconds = [0.0] * int(plan.rate_s)
    for moment in made:
        if (second := int(moment - started)) < len(seconds):
            seconds[second] += 1
    note = f"{_WORKERS_PER_CPU} at a time a processor, {_TURNOVER_LIVE} alive"
    return Samples(values=seconds, kind=yard.kind, value=len(made) / took_s, n=len(made), note=note)


async def _many(yard: Yard, plan: ControlPlan) -> dict[str, Samples]:
    """As many as the target asks of this machine's memory, then weigh them."""
    target = max(1, round(_memory_mib("MemTotal") * _LIVE_PER_MIB))
    goal = plan.live or int(min(2000, target) * _LIVE_MARGIN)
    live: deque[FirecrackerMachine] = deque()
    before = _memory_mib("MemAvailable")
    stopped = ""

    async def worker() -> None:
        nonlocal stopped
        while len(live) < goal and not stopped:
            if _memory_mib("MemAvailable") < _RESERVE_MIB:
                stopped = "memory ran out"
                return
            try:
                live.append(await yard.load(cold=True))
            except MayflyError as error:
                stopped = error.message.splitlines()[0][:160]

    try:
        async with anyio.create_task_group() as group:
            for _ in range(2 * (os.cpu_count() or 1)):
                group.start_soon(worker)
        alive = sum(not clone.exited.is_set() for clone in live)
        await anyio.sleep(_SETTLE_S)
        during = _memory_mib("MemAvailable")
        private = _private_mib(live)
    finally:
        await _destroy_all(live)
    await anyio.sleep(_SETTLE_S)
    around = (before + _memory_mib("MemAvailable")) / 2  # what others took or gave meanwhile cancels out
    each = (around - during) / max(1, alive)
    scaled = "" if target >= 2000 else f"; {target} would be in proportion to this machine's memory"
    note = f"stopped: {stopped}" if stopped else f"no more than {goal} were tried{scaled}"
    return {
        "live_clones": Samples(
            values=[float(alive)], kind=yard.kind, n=alive, note=note, judged=not plan.quick and target >= 2000
        ),
        "overhead_mib_per_vm": Samples(values=[each], kind=yard.kind, n=alive),
        "vmm_private_mib": Samples(values=private, kind=yard.kind, value=sum(private) / max(1, len(private))),
    }


@contextlib.asynccontextmanager
async def _clone(yard: Yard, *, cold: bool = False) -> AsyncIterator[FirecrackerMachine]:
    clone = await yard.load(cold=cold)
    try:
        yield clone
    finally:
        with anyio.CancelScope(shield=True):
            await clone.destroy()


async def _destroy_all(clones: deque[FirecrackerMachine]) -> None:
    async def worker() -> None:
        while clones:
            with contextlib.suppress(MayflyError):  # what stays is found when the yard is left, and said there
                await clones.popleft().destroy()

    with anyio.CancelScope(shield=True):
        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(worker)


def _private_mib(clones: deque[FirecrackerMachine]) -> list[float]:
    """What some of the VMMs have written to; the guests have not run, so none of it is theirs.

    Left out are clean pages of each VMM's own copy of its binary, which the kernel takes back when it needs memory.
    """
    every = max(1, len(clones) // _WEIGHED_MAX)
    found = []
    for clone in list(clones)[::every]:
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{clone.vmm.pid}/smaps_rollup").read_text()
            found.append(sum(int(kib) for kib in re.findall(r"^Private_Dirty: +(\d+) kB", text, re.MULTILINE)) / 1024)
    return found


def _memory_mib(name: str) -> float:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    return 0.0


def _ms_since(started: float) -> float:
    return (time.perf_counter() - started) * 1000
