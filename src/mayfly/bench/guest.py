"""The metrics that need guests that run: boots, first programs, claims, whole executions, the processor inside."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio

from mayfly.bench.metrics import Samples, percentile
from mayfly.bench.yard import open_yard
from mayfly.client.address import NodeAddress
from mayfly.client.core import NodeClient
from mayfly.errors import HostError, MayflyError, VmmTimeoutError
from mayfly.guest.calls import execute
from mayfly.guest.link import open_link
from mayfly.host.process import spawn
from mayfly.images.comparison import build_comparison_kernel
from mayfly.model import ExecutionRequest, Limits
from mayfly.node.assemble import NodeOptions, open_node
from mayfly.pool.greeting import greet_machine
from mayfly.pool.trial import try_clone
from mayfly.server.app import create_app
from mayfly.server.run import serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path
    from typing import Literal

    from mayfly.bench.yard import Yard
    from mayfly.host.paths import StatePaths
    from mayfly.host.process import Child
    from mayfly.model import HostKind, Stage
    from mayfly.node.service import Node
    from mayfly.vmm.firecracker import FirecrackerLauncher
    from mayfly.vmm.machine import FirecrackerMachine

__all__ = ["GUEST_METRICS", "measure_guest"]

_IN_YARD = frozenset({"boot_ms", "boot_ratio", "boot_init_ms", "first_run_ms", "guest_cpu_ratio", "post_restore_ms"})
_IN_NODE = frozenset({"claim_ms", "execution_ms"})
GUEST_METRICS = _IN_YARD | _IN_NODE

_MEM_MIB = 256
_INIT_WORDS = b"as init process"
_INIT_DEADLINE_S = 60.0
_LOOK_S = 0.002
_PRIMED_DEADLINE_S = 180.0
_PROGRAM_S = 120.0
_LINK_DEADLINE_S = 15.0
_PRINTED_MAX_BYTES = 4096
_HELLO = "print(1)\n"
_TOUCH = """import time
started = time.perf_counter()
block = bytearray(128 << 20)
block[::4096] = bytes(32768)
print((time.perf_counter() - started) * 1000)
"""
_LOOP = """import sys, time
def loop(count):
    total = 0
    for number in range(count):
        total = (total * 31 + number) & 0xFFFFFF
    return total
loop(20_000)
started = time.perf_counter()
loop(COUNT)
print((time.perf_counter() - started) * 1000)
print("%d.%d" % sys.version_info[:2])
"""


class _Plan:
    def __init__(self, kind: HostKind, *, quick: bool) -> None:
        slow = kind == "emulated"
        self.quick = quick
        self.boots = (1 if quick else 3) if slow else (5 if quick else 30)
        self.pairs = (1 if quick else 7) if slow else (3 if quick else 15)
        self.runs = (3 if quick else 12) if slow else (10 if quick else 100)
        self.loops = (2 if quick else 7) if slow else (3 if quick else 11)
        self.loop_count = 2_000_000 if slow else 10_000_000


async def measure_guest(
    paths: StatePaths, kind: HostKind, wanted: frozenset[str], *, quick: bool, say: Callable[[str], None]
) -> tuple[dict[str, Samples], dict[str, str]]:
    """The wanted ones of these metrics, and why others could not be measured. Guests must run here."""
    found: dict[str, Samples] = {}
    missing: dict[str, str] = {}
    plan = _Plan(kind, quick=quick)
    paths.make()
    if wanted & _IN_YARD:
        async with open_yard(paths, mem_mib=_MEM_MIB, node_kind=kind, verify=kind != "emulated") as yard:
            for name, measure in _STEPS.items():
                if name in wanted:
                    say(f"measuring {name}")
                    try:
                        found[name] = await measure(yard, plan)
                    except MayflyError as error:
                        missing[name] = str(error)
    if wanted & _IN_NODE:
        say("measuring whole executions")
        try:
            found |= await _whole(paths, kind, plan)
        except MayflyError as error:
            missing |= dict.fromkeys(_IN_NODE, str(error))
    return {name: samples for name, samples in found.items() if name in wanted}, missing


async def _boot(yard: Yard, plan: _Plan) -> Samples:
    values = [await _boot_once(yard, yard.cold) for _ in range(plan.boots)]
    return Samples(values=values, kind=yard.kind, judged=not plan.quick)


async def _boot_once(yard: Yard, launcher: FirecrackerLauncher) -> float:
    machine = await launcher.start(yard.spec())
    async with _destroyed(machine):
        await launcher.first_answer(machine)
        return (time.perf_counter() - machine.instance_started) * 1000


async def _boot_ratio(yard: Yard, plan: _Plan) -> Samples:
    """Ours and theirs in turns, so that both see the same other work; the first of each pair changes."""
    kernel = build_comparison_kernel(yard.store)
    theirs = yard.booting(replace(yard.source, kernel=kernel.file("vmlinux"), initrd=kernel.file("initrd")))
    ours_ms: list[float] = []
    theirs_ms: list[float] = []
    for number in range(plan.pairs):
        sides = [(yard.cold, ours_ms), (theirs, theirs_ms)]
        for launcher, found in sides if number % 2 else reversed(sides):
            found.append(await _boot_once(yard, launcher))
    note = (
        f"p50 of ours {percentile(ours_ms, 50):.0f} ms, of Debian's {kernel.meta['kernel']} "
        f"{percentile(theirs_ms, 50):.0f} ms"
    )
    values = [ours / debian for ours, debian in zip(ours_ms, theirs_ms, strict=True)]
    return Samples(values=values, kind=yard.kind, note=note, judged=not plan.quick)


async def _boot_init(yard: Yard, plan: _Plan) -> Samples:
    values = []
    for _ in range(plan.boots):
        machine = await yard.console.start(yard.spec())
        async with _destroyed(machine):
            try:
                with anyio.fail_after(_INIT_DEADLINE_S):
                    while _INIT_WORDS.decode() not in machine.last_words():  # noqa: ASYNC110 - it has no event
                        await anyio.sleep(_LOOK_S)
            except TimeoutError:
                raise VmmTimeoutError(f"no first process within {_INIT_DEADLINE_S:g} s of the boot") from None
            values.append((time.perf_counter() - machine.instance_started) * 1000)
    note = "with the serial console, which slows the boot; no write to an I/O address, for which guests have no right"
    return Samples(values=values, kind=yard.kind, note=note, judged=not plan.quick)


async def _first_run(yard: Yard, plan: _Plan) -> Samples:
    values = []
    machine = await yard.load()
    async with _destroyed(machine):
        snapshot = replace(yard.snapshot, working_set=await try_clone(machine, yard.snapshot.memory))
    for _ in range(plan.runs):
        machine = await yard.load(snapshot)
        async with _destroyed(machine):
            started = time.perf_counter()
            await _make_ready(machine)
            await _run(machine, _HELLO)
            values.append((time.perf_counter() - started) * 1000)
    return Samples(values=values, kind=yard.kind, judged=not plan.quick)


async def _touch(yard: Yard, plan: _Plan) -> Samples:
    values = []
    for _ in range(plan.runs):
        machine = await yard.load()
        async with _destroyed(machine):
            await _make_ready(machine)
            values.append(float(await _run(machine, _TOUCH)))
    return Samples(values=values, kind=yard.kind, note="by the program's own clock", judged=not plan.quick)


async def _cpu_ratio(yard: Yard, plan: _Plan) -> Samples:
    """Pairs in turns: outside, inside, outside, …; each inside is compared with the mean of its two neighbours."""
    program = _LOOP.replace("COUNT", str(plan.loop_count))
    python = shutil.which("python3", path="/usr/bin:/usr/local/bin") or sys.executable
    machine = await yard.load()
    ratios, versions = [], set[str]()
    async with _destroyed(machine):
        await _make_ready(machine)
        await _run(machine, program)  # as `outside`, whose interpreter other processes have used before
        outside, version = await _outside(python, program)
        versions.add(version)
        for _ in range(plan.loops):
            inside, version = _parts(await _run(machine, program))
            versions.add(version)
            after, _ = await _outside(python, program)
            ratios.append((outside + after) / 2 / inside)
            outside = after
    note = f"a loop of Python {' inside against outside '.join(sorted(versions))}, in turns"
    return Samples(values=ratios, kind=yard.kind, note=note, judged=not plan.quick and len(versions) == 1)


async def _outside(python: str, program: str) -> tuple[float, str]:
    reading, writing = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(reading, False)
    try:
        try:
            child = spawn([python, "-I", "-c", program], stdout=writing)
        finally:
            os.close(writing)
        printed = b""
        with _killed_at_the_end(child):
            while True:
                await anyio.wait_readable(reading)
                data = os.read(reading, 4096)
                if not data or len(printed) > _PRINTED_MAX_BYTES:
                    break
                printed += data
            if code := await child.wait():
                raise HostError(f"{python} ended with {code} outside the guest")
    finally:
        os.close(reading)
    return _parts(printed.decode("utf-8", "replace"))


@contextlib.contextmanager
def _killed_at_the_end(child: Child) -> Iterator[None]:
    try:
        yield
    finally:
        if child.exit_code is None:
            child.kill()
            os.waitid(os.P_PIDFD, child.pidfd, os.WEXITED)
            child.close()


def _parts(printed: str) -> tuple[float, str]:
    ms, version = printed.split()
    return float(ms), version


_STEPS = {
    "boot_ms": _boot,
    "boot_ratio": _boot_ratio,
    "boot_init_ms": _boot_init,
    "first_run_ms": _first_run,
    "post_restore_ms": _touch,
    "guest_cpu_ratio": _cpu_ratio,
}


async def _make_ready(machine: FirecrackerMachine) -> None:
    await machine.resume()
    await greet_machine(machine)


async def _run(machine: FirecrackerMachine, code: str) -> str:
    """What the program prints. HostError when it does not succeed."""
    printed = bytearray()

    async def take(stream: Literal["stdout", "stderr"], data: bytes) -> None:
        del stream
        printed.extend(data)

    request = ExecutionRequest(code=code, limits=Limits(timeout_s=_PROGRAM_S, mem_mib=machine.spec.mem_mib))
    async with open_link(machine.vsock_path, deadline_s=_LINK_DEADLINE_S) as link:
        report = await execute(link, request, nonce=secrets.token_hex(16), mem_bytes=None, stdin=None, on_output=take)
    text = printed.decode("utf-8", "replace")
    if report.exit_code != 0:
        raise HostError(f"a program to measure with ended by {report.reason}: {text[-300:]}")
    return text


@contextlib.asynccontextmanager
async def _destroyed(machine: FirecrackerMachine) -> AsyncIterator[None]:
    try:
        yield
    finally:
        with anyio.CancelScope(shield=True):
            await machine.destroy()


async def _whole(paths: StatePaths, kind: HostKind, plan: _Plan) -> dict[str, Samples]:
    """Executions through a node of this state directory, each with a clone that waits primed."""
    options = NodeOptions(kind=kind, verify=kind != "emulated", scan_deadline_s=30.0)
    socket = paths.run / "bench.sock"
    claims, wholes = [], []
    async with open_node(paths, options) as node, anyio.create_task_group() as group:
        stop, ready = anyio.Event(), anyio.Event()
        group.start_soon(_serve, node, socket, stop, ready)
        await ready.wait()
        client = NodeClient(NodeAddress(unix_socket=socket))
        for number in range(plan.runs + 1):
            await _primed(node)
            started = time.perf_counter()
            execution = await client.execute(ExecutionRequest(code=f"print({number})\n"))
            if execution.stdout != f"{number}\n":
                raise HostError(f"a program to measure with ended as {execution.status}: {execution.error}")
            if number:  # the first warms the scan and the client
                wholes.append((time.perf_counter() - started) * 1000)
                claims.append(_stage_ms(execution.stages, "launch"))
        stop.set()
    host_kind = _host_kind(kind)
    note = "every program is another one, and is scanned; destroyed before it is answered"
    return {
        "claim_ms": Samples(values=claims, kind=host_kind, judged=not plan.quick),
        "execution_ms": Samples(values=wholes, kind=host_kind, note=note, judged=not plan.quick),
    }


async def _serve(node: Node, socket: Path, stop: anyio.Event, ready: anyio.Event) -> None:
    await serve(create_app(node, token=None), unix_socket=socket, stop=stop, on_ready=lambda _: ready.set())


async def _primed(node: Node) -> None:
    try:
        with anyio.fail_after(_PRIMED_DEADLINE_S):
            while not any(shelf["warm"] >= shelf["target_primed"] > 0 for shelf in node.pool()["sizes"]):  # noqa: ASYNC110 - it has no event
                await anyio.sleep(0.02)
    except TimeoutError:
        raise HostError(f"no clone waited primed within {_PRIMED_DEADLINE_S:g} s") from None


def _stage_ms(stages: tuple[Stage, ...], name: str) -> float:
    return next((stage.ms for stage in stages if stage.name == name), 0.0)


def _host_kind(kind: HostKind) -> Literal["hardware KVM", "emulated host"]:
    return "emulated host" if kind == "emulated" else "hardware KVM"
