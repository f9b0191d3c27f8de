"""What the API costs beside its machines: a node in a process of its own, whose machines are kept agent processes."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from mayfly.bench.api_node import MACHINES, SOCKET
from mayfly.bench.metrics import Samples
from mayfly.client.address import NodeAddress
from mayfly.client.core import NodeClient
from mayfly.errors import HostError
from mayfly.host.process import spawn
from mayfly.model import ExecutionRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from mayfly.host.process import Child
    from mayfly.model import Execution

__all__ = ["measure_api"]

_READY_DEADLINE_S = 60.0
_END_DEADLINE_S = 20.0
_MACHINE_STAGES = frozenset({"launch", "greet", "execute", "destroy"})
_WARM_UP = 8
_NOTE = "the machines are agent processes of this host that are kept; every program is another one, and is scanned"


async def measure_api(wanted: frozenset[str], *, quick: bool, say: Callable[[str], None]) -> dict[str, Samples]:
    """`api_overhead_ms` and `api_executions_per_core_s`, as far as wanted. HostError when the node does not start."""
    count = 30 if quick else 250
    say(f"{2 * count} executions of a node with stand-ins for machines")
    async with _node() as (child, address):
        client = NodeClient(address)
        for number in range(_WARM_UP):
            await client.execute(_program(-number))
        overhead = [await _overhead_ms(client, number) for number in range(count)]
        before = _cpu_s(child.pid)
        await _together(client, count)
        each_s = (_cpu_s(child.pid) - before) / count
    found = {
        "api_overhead_ms": Samples(values=overhead, kind="host processes", note=_NOTE, judged=not quick),
        "api_executions_per_core_s": Samples(
            values=[1 / max(each_s, 1e-6)],
            kind="host processes",
            n=count,
            note="the node's own process",
            judged=not quick,
        ),
    }
    return {name: samples for name, samples in found.items() if name in wanted}


def _program(number: int) -> ExecutionRequest:
    return ExecutionRequest(code=f"print({number})\n")


async def _overhead_ms(client: NodeClient, number: int) -> float:
    started = time.perf_counter()
    execution = await client.execute(_program(number))
    whole = (time.perf_counter() - started) * 1000
    _check(execution, number)
    return whole - sum(stage.ms for stage in execution.stages if stage.name in _MACHINE_STAGES)


async def _together(client: NodeClient, count: int) -> None:
    numbers = iter(range(100_000, 100_000 + count))

    async def worker() -> None:
        for number in numbers:
            _check(await client.execute(_program(number)), number)

    async with anyio.create_task_group() as group:
        for _ in range(MACHINES):
            group.start_soon(worker)


def _check(execution: Execution, number: int) -> None:
    if execution.stdout.strip() != str(number):
        raise HostError(f"a program that was to print {number} ended as {execution.status}: {execution.error}")


@contextlib.asynccontextmanager
async def _node() -> AsyncIterator[tuple[Child, NodeAddress]]:
    directory = Path(tempfile.mkdtemp(prefix="mayfly-bench-"))
    theirs_in, ours_in = os.pipe()
    ours_out, theirs_out = os.pipe()
    child: Child | None = None
    try:
        command = [sys.executable, "-m", "mayfly.bench.api_node", str(directory)]
        with (directory / "log").open("wb") as log:
            child = spawn(command, stdin=theirs_in, stdout=theirs_out, stderr=log.fileno())
        os.close(theirs_in)
        os.close(theirs_out)
        theirs_in = theirs_out = -1
        await _until_ready(ours_out, directory / "log")
        yield child, NodeAddress(unix_socket=directory / SOCKET)
    finally:
        for descriptor in {theirs_in, theirs_out, ours_in, ours_out} - {-1}:
            os.close(descriptor)
        with anyio.CancelScope(shield=True):
            if child is not None:
                await _ended(child)
            shutil.rmtree(directory, ignore_errors=True)


async def _until_ready(descriptor: int, log: Path) -> None:
    with anyio.move_on_after(_READY_DEADLINE_S):
        await anyio.wait_readable(descriptor)
        if os.read(descriptor, 64):
            return
    words = log.read_bytes()[-400:].decode("utf-8", "replace").strip()
    raise HostError(f"the node for measuring the API did not start: {words or 'it said nothing'}")


async def _ended(child: Child) -> None:
    with anyio.move_on_after(_END_DEADLINE_S):
        await child.wait()
        return
    child.kill()
    await child.wait()


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
