"""Background process that owns one emulated host: starts QEMU, relays its node, keeps the console log bounded.

`python -m mayfly.host.supervisor STATE_DIRECTORY` with one JSON object (`Plan`) on standard input. It reports on
standard output, a line each: `progress TEXT`, then `ready` or `failed TEXT`, and goes on in the background. QEMU dies
with it; everything it made in the run directory is removed at its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import secrets
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mayfly.host.drives import write_code_tar
from mayfly.host.eventloop import run
from mayfly.host.locks import try_lock
from mayfly.host.paths import StatePaths
from mayfly.host.qemu import QemuMachine
from mayfly.host.sockets import free_port, short_path

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Plan", "Running", "Supervisor"]

_LOG_MAX_BYTES = 1024 * 1024
_LINE_MAX_BYTES = 64 * 1024
_CHUNK_BYTES = 64 * 1024
_READY_DEADLINE_S = 180.0
_DOWN_DEADLINE_S = 20.0
_PR_SET_PDEATHSIG = 1
_CONNECTIONS_MAX = 512


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `up` asks for."""

    kernel: str
    initrd: str
    root: str
    state_disk: str
    mem_mib: int
    idle_exit_s: float
    code_hash: str
    version: str
    node: dict[str, int] = {}
    """Settings of the node inside, by their names."""
    guest_console: bool = False
    """Guests get a serial console, whose end is shown when one does not come up; for finding faults."""


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """`run/host.json` while an emulated host runs."""

    pid: int
    qemu_pid: int
    port: int
    mem_mib: int
    code_hash: str
    version: str
    started: float


class Supervisor:
    """One emulated host from its start to its end."""

    def __init__(self, paths: StatePaths, plan: Plan, report: Callable[[str], None]) -> None:
        self._paths = paths
        self._plan = plan
        self._report = report
        self._ready = asyncio.Event()
        self._failure = ""
        self._port = free_port()
        self._relays = 0
        self._log_bytes = 0

    async def run(self) -> None:
        """Start, relay until QEMU ends, clean up."""
        code_tar = self._paths.host / "code.tar"
        token = secrets.token_urlsafe(32)
        try:
            write_code_tar(code_tar, self._config(token))
            process = await self._start_qemu(code_tar)
            try:
                await self._serve(process, token, code_tar)
            finally:
                await self._end(process)
        finally:
            for leftover in (code_tar, *self._published()):
                leftover.unlink(missing_ok=True)

    def _published(self) -> tuple[Path, ...]:
        return self._paths.node_socket, self._paths.node_token, self._paths.run / "host.json"

    def _config(self, token: str) -> dict[str, object]:
        plan = self._plan
        return {
            "token": token,
            "idle_exit_s": plan.idle_exit_s,
            "code_hash": plan.code_hash,
            "mem_mib": plan.mem_mib,
            "node": plan.node,
            "guest_console": plan.guest_console,
        }

    async def _start_qemu(self, code_tar: Path) -> asyncio.subprocess.Process:
        plan = self._plan
        machine = QemuMachine(
            kernel=Path(plan.kernel),
            initrd=Path(plan.initrd),
            root=Path(plan.root),
            state_disk=Path(plan.state_disk),
            code_tar=code_tar,
            port=self._port,
            mem_mib=plan.mem_mib,
        )
        self._report("progress starting QEMU")
        return await asyncio.create_subprocess_exec(
            *machine.command(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            preexec_fn=_die_with_parent,
            limit=_LINE_MAX_BYTES,
        )

    async def _serve(self, process: asyncio.subprocess.Process, token: str, code_tar: Path) -> None:
        console = asyncio.create_task(self._read_console(process))
        ended = asyncio.create_task(process.wait())
        ready = asyncio.create_task(self._ready.wait())
        await asyncio.wait({ended, ready}, timeout=_READY_DEADLINE_S, return_when=asyncio.FIRST_COMPLETED)
        if not self._ready.is_set() or ended.done():
            ready.cancel()
            reason = self._failure or ("QEMU ended" if ended.done() else f"not up within {_READY_DEADLINE_S:g} s")
            self._report(f"failed {reason}; its console is in {self._paths.run / 'host.log'}")
            console.cancel()
            return
        code_tar.unlink(missing_ok=True)
        _write_private(self._paths.node_token, token.encode())
        self._paths.node_socket.unlink(missing_ok=True)
        with short_path(self._paths.node_socket) as name:
            server = await asyncio.start_unix_server(self._relay, name)
        self._paths.node_socket.chmod(0o600)
        self._publish(process.pid)
        self._report("ready")
        self._go_silent()
        async with server:
            await ended
        console.cancel()

    def _publish(self, qemu_pid: int) -> None:
        plan = self._plan
        running = Running(
            pid=os.getpid(),
            qemu_pid=qemu_pid,
            port=self._port,
            mem_mib=plan.mem_mib,
            code_hash=plan.code_hash,
            version=plan.version,
            started=time.time(),
        )
        _write_private(self._paths.run / "host.json", msgspec.json.encode(running))

    @staticmethod
    def _go_silent() -> None:
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1):
            os.dup2(null, descriptor)
        os.close(null)

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        """An orderly end where the guest takes part in it, a kill otherwise."""
        if process.returncode is not None:
            return
        with contextlib.suppress(OSError, asyncio.TimeoutError):
            if process.stdin is not None and self._ready.is_set():
                process.stdin.write(b"down\n")
                await asyncio.wait_for(process.wait(), _DOWN_DEADLINE_S)
        if process.returncode is None:
            process.kill()
            await process.wait()

    async def _read_console(self, process: asyncio.subprocess.Process) -> None:
        if process.stdout is None:
            return
        log = self._paths.run / "host.log"
        with log.open("wb") as file:
            while True:
                try:
                    line = await process.stdout.readline()
                except ValueError:  # a line longer than the limit: drop it
                    continue
                if not line:
                    return
                if self._log_bytes < _LOG_MAX_BYTES:
                    self._log_bytes += file.write(line)
                    file.flush()
                self._note(line.decode("utf-8", "replace").strip())

    def _note(self, line: str) -> None:
        _, found, words = line.partition("mayfly: ")
        if not found or self._ready.is_set():
            return
        if words == "ready":
            self._ready.set()
        elif words.startswith("failed"):
            self._failure = words
        else:
            self._report(f"progress {words}")

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection to the node's port and back."""
        if self._relays >= _CONNECTIONS_MAX:
            writer.close()
            return
        self._relays += 1
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            writer.close()
        else:
            async with asyncio.TaskGroup() as group:
                group.create_task(_copy(reader, far_writer))
                group.create_task(_copy(far_reader, writer, last=far_writer))
        finally:
            self._relays -= 1


async def _copy(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, last: asyncio.StreamWriter | None = None
) -> None:
    """Copy until end of file, pass the end on, and close what is done with; broken connections just end."""
    try:
        while data := await reader.read(_CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except (OSError, asyncio.IncompleteReadError):
        writer.transport.abort()
    if last is not None:  # the node has ended its side: nothing more can come of the connection
        writer.close()
        last.close()


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _write_private(path: Path, data: bytes) -> None:
    half = path.with_suffix(".half")
    descriptor = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    half.rename(path)


def _report_line(text: str) -> None:
    with contextlib.suppress(OSError):
        os.write(1, f"{text[:2000]}\n".encode())


async def _main(paths: StatePaths, plan: Plan) -> None:
    supervisor = Supervisor(paths, plan, _report_line)
    task = asyncio.current_task()
    loop = asyncio.get_running_loop()
    if task is not None:
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await supervisor.run()


def main() -> int:
    """Entry point of the background process."""
    paths = StatePaths(Path(sys.argv[1]))
    plan = msgspec.json.decode(sys.stdin.buffer.read(_LINE_MAX_BYTES), type=Plan)
    lock = try_lock(paths.run / "node.lock")
    if lock is None:
        _report_line("failed another node already serves this state directory")
        return 1
    try:
        run(_main(paths, plan))
    except Exception as error:  # noqa: BLE001 - the one place that can still tell the caller
        _report_line(f"failed {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
