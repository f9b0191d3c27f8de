"""One jailed Firecracker process: started through the jailer, watched by pidfd, killed and awaited."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel

from mayfly.errors import HostError, VmmError, VmmExitedError, VmmTimeoutError
from mayfly.host.cgroups import read_cgroup_pids
from mayfly.host.process import Child, adopt, spawn
from mayfly.host.sockets import wait_for_file
from mayfly.host.tasks import single_error
from mayfly.vmm.api import FirecrackerApi

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from mayfly.vmm.jail import Jail

__all__ = ["JailedVmm"]

_KEPT_WORDS_BYTES = 8192
_SHOWN_WORDS = 1500
_JAILER_DEADLINE_S = 10.0
_SOCKET_DEADLINE_S = 10.0
_CONNECT_PAUSE_S = 0.0005
_EXIT_DEADLINE_S = 5.0


class JailedVmm:
    """The process of one jail. `group` runs its watchers and must outlive it."""

    def __init__(self, jail: Jail, group: TaskGroup) -> None:
        self.exited = anyio.Event()
        self._jail = jail
        self._group = group
        self._child: Child | None = None
        self._words = bytearray()
        self._cpu_s = 0.0

    @property
    def pid(self) -> int | None:
        """Its pid on this host while it runs."""
        return self._child.pid if self._child is not None and self._child.exit_code is None else None

    def last_words(self) -> str:
        """The end of what it printed, and its exit code once it has ended."""
        words = self._words.decode("utf-8", "replace").strip()[-_SHOWN_WORDS:]
        code = None if self._child is None else self._child.exit_code
        return words if code is None else f"{words} [exit code {code}]".strip()

    def cpu_s(self) -> float:
        """CPU seconds used so far, user and system, of all its threads."""
        if self.pid is not None:
            with contextlib.suppress(OSError, ValueError, IndexError):
                fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
                self._cpu_s = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return self._cpu_s

    def anonymous_mib(self) -> float:
        """Memory of its own, the guest's changed pages included, in MiB; 0 when it has ended."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            for line in Path(f"/proc/{self.pid or 'none'}/status").read_text().splitlines():
                if line.startswith("RssAnon:"):
                    return int(line.split()[1]) / 1024
        return 0.0

    async def start(self, mem_mib: int, vcpus: int = 1) -> None:
        """Run the jailer, which becomes Firecracker. VmmError with its words when it fails."""
        reading, writing = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(reading, False)  # our end only: Firecracker must not meet EAGAIN on its log
        try:
            command = self._jail.command(mem_mib=mem_mib, vcpus=vcpus)
            # the jailer clears its environment and closes all descriptors but these
            jailer = spawn(command, stdout=writing, stderr=writing, env={}, closes_descriptors=True)
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        self._group.start_soon(self._drain, reading)
        try:
            with anyio.fail_after(_JAILER_DEADLINE_S):
                code = await jailer.wait()
        except TimeoutError as error:
            raise VmmTimeoutError(f"the jailer did not finish within {_JAILER_DEADLINE_S:g} s") from error
        finally:
            jailer.kill()
        if code != 0:
            await anyio.lowlevel.checkpoint()  # lets the log arrive
            raise VmmError(f"the jailer ended with {code}: {self.last_words() or 'it said nothing'}")
        self._child = adopt(self._jail.vmm_pid())
        self._group.start_soon(self._watch, self._child)

    async def api(self) -> FirecrackerApi:
        """Its API, as soon as the socket is there. VmmTimeoutError or VmmExitedError."""
        try:
            with anyio.fail_after(_SOCKET_DEADLINE_S), single_error():
                async with anyio.create_task_group() as group:
                    group.start_soon(self.fail_at_exit, "at its start")
                    api = await self._connect()
                    group.cancel_scope.cancel()
        except TimeoutError as error:
            raise VmmTimeoutError(f"Firecracker made no API socket within {_SOCKET_DEADLINE_S:g} s") from error
        return api

    async def _connect(self) -> FirecrackerApi:
        """Connect as soon as somebody listens: the socket's file is there a moment before that."""
        await wait_for_file(self._jail.api_socket)
        while True:
            try:
                return await FirecrackerApi.connect(self._jail.api_socket)
            except VmmExitedError:  # whether it has really ended, the caller watches
                await anyio.sleep(_CONNECT_PAUSE_S)

    async def fail_at_exit(self, when: str) -> None:
        """Wait for its end and raise VmmExitedError with its last words: one side of a race."""
        await self.exited.wait()
        raise VmmExitedError(f"Firecracker ended {when}: {self.last_words() or 'it said nothing'}")

    async def kill(self) -> None:
        """Kill it and whatever else is in its control group, and wait for the end. Idempotent."""
        self.cpu_s()
        if self._child is not None:
            self._child.kill()
        for pid in read_cgroup_pids(self._jail.options.cgroups, self._jail.cgroup):
            with contextlib.suppress(HostError):
                stray = adopt(pid)
                stray.kill()
                stray.close()
        if self._child is not None:
            with anyio.fail_after(_EXIT_DEADLINE_S):
                await self.exited.wait()

    async def _watch(self, child: Child) -> None:
        with anyio.CancelScope(shield=True):
            await child.wait()
        self.exited.set()

    async def _drain(self, reading: int) -> None:
        """Keep the last words of its log; the pipe ends when its last writer does."""
        try:
            while True:
                await anyio.wait_readable(reading)
                data = os.read(reading, 4096)
                if not data:
                    return
                self._words += data
                del self._words[:-_KEPT_WORDS_BYTES]
        finally:
            os.close(reading)
