"""A whole node for tests: the real service, scan and agent, machines that are plain processes, served over HTTP."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import msgspec

from mayfly.guest.sandbox import Guest
from mayfly.model import Verdict
from mayfly.node.admission import Admission
from mayfly.node.gate import Gate
from mayfly.node.sandboxes import open_sandboxes
from mayfly.node.service import Node
from mayfly.node.store import ExecutionStore
from mayfly.scan.manifest import Manifest
from mayfly.scan.policy import builtin_policy, policy_names
from mayfly.testing.launcher import FakeLauncher
from mayfly.testing.nodes import open_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path
    from typing import Any

    from mayfly.node.templates import NodeTemplates
    from mayfly.vmm.launcher import Launcher

__all__ = ["AllowingScanner", "Service", "open_service"]


class AllowingScanner:
    """Allows everything but what has the word `DENY` in it."""

    async def scan(self, code: bytes, *_: object) -> Verdict:
        """As `mayfly.node.scanner.Scanner.scan`."""
        return Verdict(verdict="deny" if b"DENY" in code else "allow")


class Service(msgspec.Struct, frozen=True):
    """A node that is served. `launcher` made its machines; `address` is what `MAYFLY_NODE` takes."""

    node: Node
    launcher: Any
    unix_socket: Path

    @property
    def address(self) -> str:
        """Where it is."""
        return f"unix:{self.unix_socket}"


@asynccontextmanager
async def open_service(
    directory: Path,
    *,
    machines: int = 8,
    scanner: Any = None,
    launcher: Launcher | None = None,
    guest_of: Any = Guest,
    templates: NodeTemplates | None = None,
    **server: Any,
) -> AsyncIterator[Service]:
    """A node with its records in `directory`, served at the socket `n` there; `server` goes to `open_server`.

    `scanner` None is an `AllowingScanner`, `launcher` None a `FakeLauncher`; `guest_of` see `open_sandboxes`,
    as `templates`.
    """
    async with anyio.create_task_group() as group:
        launcher = launcher or FakeLauncher(group)
        admission = Admission(mem_mib=machines * 1024, vcpus=2, machines=machines, queue=1, wait_s=0.5)
        policies = {name: builtin_policy(name) for name in policy_names()}
        judge: Any = scanner or AllowingScanner()
        gate = Gate(judge, Manifest(image="python", python="3.13"), policies)
        with ExecutionStore(directory / "executions.db") as store:
            database = directory / "sandboxes.db"
            async with open_sandboxes(
                launcher, gate, admission, database, templates=templates, guest_of=guest_of
            ) as sandboxes:
                node = Node(launcher, gate, store, admission, version="0.1.0", templates=templates)
                node.sandboxes = sandboxes
                async with open_server(node, unix_socket=directory / "n", **server):
                    yield Service(node, launcher, directory / "n")
        group.cancel_scope.cancel()
