"""A node for measuring the API: everything of a node but its machines, for which kept agent processes stand in.

`python -m mayfly.bench.api_node DIRECTORY` serves on `DIRECTORY/n`, says `ready` on standard output, and ends with
its standard input.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

import mayfly
from mayfly.node.admission import Admission
from mayfly.node.gate import Gate, load_policies
from mayfly.node.scanner import open_scanner
from mayfly.node.service import Node
from mayfly.node.store import ExecutionStore
from mayfly.observe.log import configure_log
from mayfly.scan.manifest import Manifest
from mayfly.server.app import create_app
from mayfly.server.run import serve
from mayfly.testing.launcher import FakeLauncher
from mayfly.vmm.launcher import MachineSpec

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mayfly.model import HostInfo, HostKind
    from mayfly.testing.launcher import FakeMachine

__all__ = ["MACHINES", "SOCKET", "main"]

SOCKET = "n"
MACHINES = 4
"""So many agents are kept."""


class _KeptMachine:
    """A machine that goes back to where it came from: starting an agent is not what is measured."""

    def __init__(self, machine: FakeMachine, home: list[FakeMachine]) -> None:
        self.id = machine.id
        self.vsock_path = machine.vsock_path
        self.exited = machine.exited
        self.greeted = True
        self._machine = machine
        self._home = home

    def cpu_s(self) -> float:
        return self._machine.cpu_s()

    def last_words(self) -> str:
        return self._machine.last_words()

    async def destroy(self) -> None:
        self._home.append(self._machine)


class _KeptLauncher:
    kind: HostKind = "fake"

    def __init__(self, launcher: FakeLauncher, machines: list[FakeMachine]) -> None:
        self._launcher = launcher
        self._machines = machines

    def describe(self, image: str = "python") -> HostInfo:
        return self._launcher.describe(image)

    async def launch(self, spec: MachineSpec) -> _KeptMachine:
        del spec
        return _KeptMachine(self._machines.pop(), self._machines)


@contextlib.asynccontextmanager
async def _launcher() -> AsyncIterator[_KeptLauncher]:
    async with anyio.create_task_group() as group:
        fake = FakeLauncher(group)
        machines = [await fake.launch(MachineSpec(id=f"api-{number}", mem_mib=256)) for number in range(MACHINES)]
        try:
            yield _KeptLauncher(fake, machines)
        finally:
            with anyio.CancelScope(shield=True):
                for machine in fake.launched:
                    await machine.destroy()
            group.cancel_scope.cancel()


async def _serve(directory: Path) -> None:
    stop = anyio.Event()
    async with _launcher() as launcher, open_scanner() as scanner:
        with ExecutionStore(directory / "db") as record:
            policies = load_policies(directory / "policies", None)
            gate = Gate(scanner, Manifest(image="python", stdlib=tuple(sys.stdlib_module_names)), policies)
            admission = Admission(mem_mib=64 * 1024, vcpus=8, machines=MACHINES)
            node = Node(launcher, gate, record, admission, version=mayfly.__version__)
            async with anyio.create_task_group() as group:
                group.start_soon(_end_with_input, stop)
                await serve(
                    create_app(node, token=None),
                    unix_socket=directory / SOCKET,
                    stop=stop,
                    on_ready=lambda _: os.write(1, b"ready\n"),
                )
                group.cancel_scope.cancel()


async def _end_with_input(stop: anyio.Event) -> None:
    await anyio.wait_readable(0)
    stop.set()


def main() -> None:
    """Serve until standard input ends."""
    configure_log()
    anyio.run(_serve, Path(sys.argv[1]))


if __name__ == "__main__":
    main()
