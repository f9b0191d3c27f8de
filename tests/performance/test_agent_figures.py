"""What the guest's side of sandboxes costs: printed, with the agent as a plain process and no node in between.

`pytest tests/performance/test_agent_figures.py -s` prints the figures. Beside the agent's own work they hold that of
the stand-in for Firecracker, which passes every byte on.
"""

# ruff: noqa: T201 - printing figures is what it is for

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

import pytest

from mayfly.guest.shapes import CodeOutput, CodeRequest, ProcessOutput, ProcessSpec
from mayfly.testing.guests import open_guest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mayfly.guest.sandbox import Guest
    from mayfly.guest.shapes import CodeEvent

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

MIB = 1 << 20
RUNS = 300
FILE_MIB = 256


@pytest.fixture
async def guest() -> AsyncIterator[Guest]:
    async with open_guest() as guest:
        await guest.create_context("default", lang="python")
        yield guest


async def _ignore(_: CodeEvent) -> None:
    return None


async def test_overhead_of_a_run(guest: Guest) -> None:
    request = CodeRequest(context_id="default", code="1 + 1", nonce="n")
    for ahead in (False, True):
        took_ms = []
        for _ in range(RUNS):
            if ahead:
                await guest.spare.prepare()
            before = time.perf_counter()
            end = await guest.run_code(request, on_event=_ignore)
            took_ms.append((time.perf_counter() - before) * 1000 - end.guest_ms)
        how = "over a link opened ahead" if ahead else "with its link"
        print(f"\nrun_code('1 + 1') {how}, less the guest's own time: {statistics.median(took_ms):.2f} ms p50")
    await guest.spare.aclose()


async def test_age_of_streamed_output(guest: Guest) -> None:
    ages_ms: list[float] = []

    async def on_event(event: CodeEvent) -> None:
        if isinstance(event, CodeOutput):
            ages_ms.append((time.time() - float(event.data.split()[-1])) * 1000)

    code = "import time\nfor _ in range(200):\n    print(f'{time.time()} ', end='')\n    time.sleep(0.01)"
    await guest.run_code(CodeRequest(context_id="default", code=code, nonce="n"), on_event=on_event)
    ages_ms.sort()
    print(
        f"\noutput is {statistics.median(ages_ms):.2f} ms old at the host, p95 {ages_ms[len(ages_ms) * 19 // 20]:.2f}"
    )


async def test_throughput_of_files_and_output(guest: Guest) -> None:
    async def content() -> AsyncIterator[bytes]:
        for _ in range(FILE_MIB):
            yield bytes(MIB)

    before = time.perf_counter()
    await guest.write_file("big", content())
    written_s = time.perf_counter() - before
    before = time.perf_counter()
    async with guest.read_file("big") as pieces:
        size = sum([len(piece) async for piece in pieces])
    read_s = time.perf_counter() - before
    assert size == FILE_MIB * MIB
    print(f"\nfiles: {FILE_MIB / written_s:.0f} MiB/s into the guest, {FILE_MIB / read_s:.0f} MiB/s out of it")
    before = time.perf_counter()
    async with guest.open_process(ProcessSpec(shell=f"head -c {FILE_MIB * MIB} /dev/zero")) as process:
        size = sum([len(event.data) async for event in process if isinstance(event, ProcessOutput)])
    print(f"output of a process: {size / MIB / (time.perf_counter() - before):.0f} MiB/s")
