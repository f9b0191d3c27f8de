"""The moments of a VMM's start that only a loaded machine shows."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import anyio
import pytest

from mayfly.errors import VmmExitedError
from mayfly.vmm.process import JailedVmm

if TYPE_CHECKING:
    from pathlib import Path

    from anyio.abc import TaskGroup


def vmm_with(path: Path, group: TaskGroup) -> JailedVmm:
    jail: Any = SimpleNamespace(api_socket=path)
    return JailedVmm(cast("Any", jail), group)


def test_a_socket_that_nobody_listens_on_yet_is_waited_for(tmp_path: Path) -> None:
    async def start() -> None:
        async with anyio.create_task_group() as group:
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(str(tmp_path / "api.sock"))

                async def listen_late() -> None:
                    await anyio.sleep(0.05)
                    listener.listen()

                group.start_soon(listen_late)
                async with await vmm_with(tmp_path / "api.sock", group).api():
                    pass

    anyio.run(start)


def test_a_vmm_that_ends_before_it_listens_is_said_to_have_ended(tmp_path: Path) -> None:
    async def start() -> None:
        async with anyio.create_task_group() as group:
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(str(tmp_path / "api.sock"))
                vmm = vmm_with(tmp_path / "api.sock", group)
                group.start_soon(_end_late, vmm)
                with pytest.raises(VmmExitedError):
                    await vmm.api()

    anyio.run(start)


async def _end_late(vmm: JailedVmm) -> None:
    await anyio.sleep(0.05)
    vmm.exited.set()
