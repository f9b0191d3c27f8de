"""An emulated host that measures and switches itself off, seen from outside."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import msgspec

from mayfly.bench.inside import Findings, Order
from mayfly.bench.yard import only_benchmark
from mayfly.errors import EmulatedHostError, SetupError
from mayfly.host.drives import ensure_state_disk, write_code_tar
from mayfly.host.paths import StatePaths
from mayfly.host.process import spawn
from mayfly.host.qemu import QemuMachine, default_mem_mib
from mayfly.host.sockets import free_port
from mayfly.images.comparison import build_comparison_kernel
from mayfly.images.store import Store, remove_tree

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

__all__ = ["measure_emulated"]

_KINDS = ("firecracker", "kernel", "image-python")
_DEADLINE_S = 1500.0
_QUICK_DEADLINE_S = 400.0
_END_DEADLINE_S = 30.0
_LINE_MAX_BYTES = 256 * 1024
_MARK = b"mayfly: "


async def measure_emulated(
    paths: StatePaths, wanted: frozenset[str], *, quick: bool, say: Callable[[str], None]
) -> Findings:
    """Measure in an emulated host of this benchmark's own; nothing of it remains. EmulatedHostError, SetupError."""
    deadline_s = _QUICK_DEADLINE_S if quick else _DEADLINE_S
    with only_benchmark(paths.make()):
        return await _measure(paths, Order(ids=tuple(sorted(wanted)), quick=quick), deadline_s, say)


async def _measure(paths: StatePaths, order: Order, deadline_s: float, say: Callable[[str], None]) -> Findings:
    async with _directory(paths) as own:
        machine = await anyio.to_thread.run_sync(_machine, own, order)
        try:
            with anyio.fail_after(deadline_s):
                return await _follow(machine, say)
        except TimeoutError as error:
            raise EmulatedHostError(f"the emulated host did not finish measuring within {deadline_s:g} s") from error


@contextlib.asynccontextmanager
async def _directory(paths: StatePaths) -> AsyncIterator[StatePaths]:
    """A state directory that shares the store: a node's emulated host may run meanwhile."""
    root = paths.build / f"bench-host-{os.getpid()}-{secrets.token_hex(4)}"
    root.mkdir(mode=0o700)
    try:
        (root / "store").symlink_to(paths.store)
        yield StatePaths(root).make()
    finally:
        (root / "store").unlink(missing_ok=True)
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(remove_tree, root)


def _machine(own: StatePaths, order: Order) -> QemuMachine:
    store = Store(own)
    host = store.verified("emulated-host")
    seeds = [store.verified(kind) for kind in _KINDS]
    if "boot_ratio" in order.ids:
        with contextlib.suppress(SetupError):  # that metric is missing then, and says why
            seeds.append(build_comparison_kernel(store))
    mem_mib = default_mem_mib()
    code_tar = own.host / "code.tar"
    write_code_tar(code_tar, {"bench": msgspec.to_builtins(order), "mem_mib": mem_mib})
    return QemuMachine(
        kernel=host.path / "vmlinuz",
        initrd=host.path / "initrd",
        root=host.path / "root.ext4",
        state_disk=ensure_state_disk(own, [seed.path for seed in seeds]),
        code_tar=code_tar,
        port=free_port(),
        mem_mib=mem_mib,
    )


async def _follow(machine: QemuMachine, say: Callable[[str], None]) -> Findings:
    """Run QEMU and read its console for what is found."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(reading, False)
    holder = shutil.which("setpriv")  # ends QEMU with us, should we be killed
    command = [*((holder, "--pdeathsig", "KILL", "--") if holder else ()), *machine.command()]
    try:
        child = spawn(command, stdout=writing, stderr=writing)
    except BaseException:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    last = b""
    try:
        async for line in _lines(reading):
            _, mark, words = line.partition(_MARK)
            last = words if mark else last
            if mark and words.startswith(b"found "):
                return msgspec.json.decode(words.removeprefix(b"found "), type=Findings)
            if mark and words.startswith(b"failed"):
                break
            if mark:
                say(words.decode("ascii", "replace").strip())
    except msgspec.DecodeError as error:
        raise EmulatedHostError(f"the emulated host's figures cannot be read: {error}") from error
    finally:
        os.close(reading)
        with anyio.CancelScope(shield=True):
            child.kill(signal.SIGKILL)
            with anyio.move_on_after(_END_DEADLINE_S):
                await child.wait()
    raise EmulatedHostError(
        f"the emulated host ended without figures: {last[-300:].decode('utf-8', 'replace').strip()}"
    )


async def _lines(descriptor: int) -> AsyncIterator[bytes]:
    """Lines of the console; what is longer than the limit is dropped."""
    pending = b""
    while True:
        await anyio.wait_readable(descriptor)
        data = os.read(descriptor, 65536)
        if not data:
            return
        *lines, pending = (pending + data).split(b"\n")
        for line in lines:
            yield line
        if len(pending) > _LINE_MAX_BYTES:
            pending = b""
