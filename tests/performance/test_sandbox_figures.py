"""What sandboxes cost beside what the code in them takes: printed, on a node whose machines are plain processes.

`pytest tests/performance/test_sandbox_figures.py -s` prints the figures; `docs/performance.md` has those that were
taken. The node runs in a process of its own, the client in this one.
"""

# ruff: noqa: T201 - printing figures is what it is for

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import msgspec
import pytest

from mayfly import AsyncSandbox
from mayfly.client.address import NodeAddress
from mayfly.client.http import open_exchange
from mayfly.client.kept import Kept
from mayfly.testing.service import open_service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]

MIB = 1024 * 1024
FILE_BYTES = 256 * MIB
SANDBOXES = 200
JSON = {"Content-Type": "application/json"}


class Caller:
    def __init__(self, socket: Path) -> None:
        self.address = NodeAddress(unix_socket=socket)
        self.kept = Kept()

    async def ask(self, method: str, path: str, body: Any = None, content: Any = None) -> Any:
        given = msgspec.json.encode(body) if content is None else content
        async with open_exchange(
            self.address, method, f"/v1/sandboxes{path}", headers=JSON, content=given, deadline_s=120, kept=self.kept
        ) as answer:
            raw = await answer.read(limit_bytes=MIB, deadline_s=120)
            assert answer.status < 300, raw
            return msgspec.json.decode(raw) if raw else None

    async def stream(self, method: str, path: str, body: Any = None) -> AsyncIterator[dict[str, Any]]:
        content = b"" if body is None else msgspec.json.encode(body)
        async with open_exchange(
            self.address, method, f"/v1/sandboxes{path}", headers=JSON, content=content, deadline_s=120
        ) as answer:
            async for line in answer.lines(limit_bytes=MIB, deadline_s=120):
                if line:
                    yield msgspec.json.decode(line)


@asynccontextmanager
async def node(directory: Path) -> AsyncIterator[Caller]:
    process = subprocess.Popen(  # noqa: ASYNC220 - started once, before anything is measured
        [sys.executable, __file__, str(directory)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    try:
        with anyio.fail_after(30):
            while not (directory / "n").exists():  # noqa: ASYNC110
                await anyio.sleep(0.05)
        yield Caller(directory / "n")
    finally:
        process.communicate(timeout=60)


def show(what: str, samples_ms: list[float]) -> None:
    ordered = sorted(samples_ms)
    last = ordered[int(len(ordered) * 0.95)]
    print(f"{what}: p50 {statistics.median(ordered):.2f} ms, p95 {last:.2f} ms, {len(ordered)} samples")


async def test_code_in_an_open_sandbox(tmp_path: Path) -> None:
    async with node(tmp_path) as caller:
        path = f"/{(await caller.ask('POST', '', {}))['id']}/runs"
        whole, beside = [], []
        for _ in range(300):
            started = time.perf_counter()
            execution = await caller.ask("POST", path, {"code": "1+1"})
            whole.append((time.perf_counter() - started) * 1000)
            beside.append(whole[-1] - execution["usage"]["wall_ms"])
        sandbox = await AsyncSandbox.connect(path.split("/")[1], node=caller.address)
        through = []
        for _ in range(300):
            started = time.perf_counter()
            run = await sandbox.run_code("1+1")
            through.append((time.perf_counter() - started) * 1000 - run.usage.wall_ms)
        await sandbox.close()
        caller.kept.close()
    show("run_code('1+1') as one request, whole", whole)
    show("run_code('1+1') as one request, less the guest's own time", beside)
    show("run_code('1+1') by AsyncSandbox, streamed, less the guest's own time", through)


async def test_first_token(tmp_path: Path) -> None:
    code = "import time\nfor _ in range(50):\n    print(time.time(), flush=True)\n    time.sleep(0.02)"
    async with node(tmp_path) as caller:
        path = f"/{(await caller.ask('POST', '', {}))['id']}/runs?stream=true"
        delays = [
            (time.time() - float(event["text"].split()[-1])) * 1000
            async for event in caller.stream("POST", path, {"code": code})
            if event["event"] == "output" and event["text"].strip()
        ]
    show("from print to the client", delays)


async def test_files(tmp_path: Path) -> None:
    block = bytes(range(256)) * 1024

    async def blocks() -> AsyncIterator[bytes]:
        for _ in range(FILE_BYTES // len(block)):
            yield block

    async with node(tmp_path) as caller:
        path = f"/{(await caller.ask('POST', '', {}))['id']}/files?path=large"
        started = time.perf_counter()
        await caller.ask("PUT", path, content=blocks())
        up_s = time.perf_counter() - started
        started, size = time.perf_counter(), 0
        async with open_exchange(caller.address, "GET", f"/v1/sandboxes{path}", deadline_s=60) as answer:
            async for piece in answer.chunks(deadline_s=60):
                size += len(piece)
        down_s = time.perf_counter() - started
    assert size == FILE_BYTES
    print(f"a file of 256 MiB: up {FILE_BYTES / MIB / up_s:.0f} MiB/s, down {FILE_BYTES / MIB / down_s:.0f} MiB/s")


async def test_two_hundred_sandboxes_with_two_hundred_streams(tmp_path: Path) -> None:
    code = "import time\nfor n in range(10):\n    print(n, flush=True)\n    time.sleep(0.5)"
    ends: list[float] = []
    seen: list[int] = []

    async def follow(caller: Caller, sandbox: str, room: anyio.Semaphore) -> None:
        del room
        started = time.perf_counter()
        count = 0
        async for event in caller.stream("POST", f"/{sandbox}/runs?stream=true", {"code": code}):
            count += event["event"] == "output"
        ends.append((time.perf_counter() - started) * 1000)
        seen.append(count)

    async with node(tmp_path) as caller:
        made: list[str] = []

        async def make(room: anyio.Semaphore) -> None:
            async with room:
                made.append((await caller.ask("POST", "", {"limits": {"mem_mib": 128}}))["id"])

        room = anyio.Semaphore(8)
        started = time.perf_counter()
        async with anyio.create_task_group() as tasks:
            for _ in range(SANDBOXES):
                tasks.start_soon(make, room)
        print(f"{SANDBOXES} sandboxes made in {time.perf_counter() - started:.1f} s, 8 at a time")
        async with anyio.create_task_group() as tasks:
            for sandbox in made:
                tasks.start_soon(follow, caller, sandbox, room)
    show("200 streams of 5 s each, from request to end", ends)
    assert len(seen) == SANDBOXES
    assert min(seen) > 0


async def _serve(directory: Path) -> None:
    async with open_service(directory, machines=2 * SANDBOXES):
        await anyio.to_thread.run_sync(sys.stdin.read)


if __name__ == "__main__":
    import anyio.to_thread

    anyio.run(_serve, Path(sys.argv[1]))
