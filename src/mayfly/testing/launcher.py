"""A launcher for tests: the whole service in milliseconds, with the real agent, without a VM."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import msgspec

from mayfly.errors import HostError, VmmTimeoutError
from mayfly.guest.calls import ping
from mayfly.guest.link import open_link
from mayfly.host.process import spawn
from mayfly.model import HostInfo

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from mayfly.host.process import Child
    from mayfly.model import HostKind
    from mayfly.vmm.launcher import MachineSpec

__all__ = ["FakeLauncher", "FakeMachine", "Faults"]

_PROCESS = Path(__file__).parent / "vmm_process.py"
_END_DEADLINE_S = 5.0
_WORDS_MAX_BYTES = 8192


class Faults(msgspec.Struct, frozen=True, kw_only=True):
    """What goes wrong with the machines of a `FakeLauncher`; by default nothing."""

    launch_fails: bool = False
    """`launch` raises VmmTimeoutError."""
    handshake_hangs: int = 0
    """So many first connections get no answer to CONNECT."""
    handshake_resets: int = 0
    """So many connections after those are closed at CONNECT."""
    delay_s: float = 0.0
    """Every connection is answered this much later."""
    silent: bool = False
    """The agent can be connected to, and never answers."""
    drops_exec: bool = False
    """The agent closes the connection at EXEC."""
    dies_at_exec: bool = False
    """The machine ends at EXEC."""
    answer_to_exec: bytes = b""
    """The agent answers EXEC with these bytes and closes."""


class FakeMachine:
    """A machine that is a process of this host. Made by `FakeLauncher.launch`."""

    def __init__(self, machine_id: str, directory: Path, child: Child, lifeline: int) -> None:
        self.id = machine_id
        self.vsock_path = directory / "v.sock"
        self.exited = anyio.Event()
        self.greeted = False
        self._directory = directory
        self._child = child
        self._lifeline = lifeline

    @property
    def pid(self) -> int:
        """The process that stands in for the VMM."""
        return self._child.pid

    def cpu_s(self) -> float:
        """Always 0: what such a machine uses says nothing about a VM."""
        return 0.0

    def last_words(self) -> str:
        """What the process printed; empty once destroyed."""
        try:
            return (self._directory / "console").read_bytes()[-_WORDS_MAX_BYTES:].decode("utf-8", "replace")
        except OSError:
            return ""

    async def watch(self) -> None:
        """Sets `exited` when the process has ended."""
        await self._child.wait()
        self.exited.set()

    async def destroy(self) -> None:
        """Ends the process and all that descends from it, removes its files. Idempotent; HostError if it stays."""
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1
        with anyio.move_on_after(_END_DEADLINE_S):
            await self.exited.wait()
        if not self.exited.is_set():
            self._child.kill()
            with anyio.move_on_after(_END_DEADLINE_S):
                await self.exited.wait()
        shutil.rmtree(self._directory, ignore_errors=True)
        if not self.exited.is_set():
            raise HostError(f"the process of fake machine {self.id} does not end", phase="destroy")


class FakeLauncher:
    """Launches machines that are plain processes. `group` runs their watchers and outlives every machine.

    They contain nothing: `kind` is `fake`, and whoever shows where a program ran shows that.
    """

    def __init__(self, group: TaskGroup, *, faults: Faults | None = None, agent_deadline_s: float = 20.0) -> None:
        self.kind: HostKind = "fake"
        self.faults = faults or Faults()
        """May be replaced between launches."""
        self.launched: list[FakeMachine] = []
        """Every machine so far."""
        self._group = group
        self._agent_deadline_s = agent_deadline_s

    def describe(self, image: str = "python") -> HostInfo:
        """See `Launcher.describe`."""
        del image
        return HostInfo(kind="fake", firecracker="none", kernel=os.uname().release, image="this host")

    async def launch(self, spec: MachineSpec) -> FakeMachine:
        """See `Launcher.launch`."""
        if self.faults.launch_fails:
            raise VmmTimeoutError("the fake launcher was told to fail")
        machine = self._start(spec)
        self._group.start_soon(machine.watch)
        self.launched.append(machine)
        try:
            if not self.faults.silent:
                async with open_link(machine.vsock_path, deadline_s=self._agent_deadline_s) as link:
                    await ping(link)
        except BaseException:
            with anyio.CancelScope(shield=True), contextlib.suppress(HostError):
                await machine.destroy()
            raise
        return machine

    def _start(self, spec: MachineSpec) -> FakeMachine:
        directory = Path(tempfile.mkdtemp(prefix="mayfly-fake-"))
        directory.chmod(0o755)  # programs run as another user when this one is root
        ours = -1
        try:
            theirs, ours = os.pipe()
            faults = msgspec.to_builtins(self.faults) | {"answer_to_exec": self.faults.answer_to_exec.hex()}
            command = [sys.executable, "-SE", str(_PROCESS), str(directory / "v.sock"), str(spec.mem_mib)]
            with (directory / "console").open("wb") as console:
                child = spawn(
                    [*command, msgspec.json.encode(faults).decode()],
                    stdin=theirs,
                    stdout=console.fileno(),
                    stderr=console.fileno(),
                    env={"TMPDIR": str(directory), "PATH": os.environ.get("PATH", "")},
                )
        except BaseException:
            if ours >= 0:
                os.close(ours)
            shutil.rmtree(directory, ignore_errors=True)
            raise
        finally:
            os.close(theirs)
        return FakeMachine(spec.id, directory, child, ours)
