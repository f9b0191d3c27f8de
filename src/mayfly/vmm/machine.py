"""One microVM, from the jail to its removal: named steps, each with its undo."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import structlog

from mayfly.errors import HostError, MayflyError, VmmError
from mayfly.host.cgroups import remove_cgroups
from mayfly.host.sparse import pack_sparse
from mayfly.host.tasks import single_error
from mayfly.vmm.jail import SCRATCH_NAME
from mayfly.vmm.process import JailedVmm
from mayfly.vmm.undo import UndoList
from mayfly.vmm.versions import OLDEST_VERSION, FirecrackerVersion, load_request, resume_after_pause_works
from mayfly.vmm.workingset import copy_working_set, find_working_set

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from anyio.abc import TaskGroup

    from mayfly.vmm.api import FirecrackerApi
    from mayfly.vmm.jail import Jail
    from mayfly.vmm.launcher import MachineSpec
    from mayfly.vmm.workingset import Runs

_log = structlog.get_logger("mayfly.vmm")

__all__ = ["BootSource", "FirecrackerMachine", "SnapshotFiles", "rate_limiter"]

_SNAPSHOT_DEADLINE_S = 120.0
_LOAD_DEADLINE_S = 30.0
_REFILL_MS = 1000

_BOOT_ARGUMENTS = (
    "reboot=k panic=1 pci=off i8042.noaux i8042.nomux i8042.dumbkbd i8042.nopnp "
    "swiotlb=noforce cryptomgr.notests random.trust_cpu=on no_timer_check "
    # one program, one VM: there is no second party inside to protect from speculation
    "mitigations=off rootfstype=squashfs init=/sbin/mayfly-init"
)
_SILENT = "8250.nr_uarts=0 quiet loglevel=1"
_CONSOLE = "console=ttyS0"


@dataclass(frozen=True, slots=True)
class BootSource:
    """What a machine boots from: read-only files, all on the store's file system, and words for its kernel."""

    kernel: Path
    rootfs: Path
    agent: Path
    extra_arguments: str = ""
    console: bool = False
    """Whether the guest writes to a serial console, which is slower; for finding faults."""
    name: str = ""
    """The image and its key, as results name it."""
    scratch: Path | None = None
    """Pack of an empty disk (`mayfly.host.sparse`), where the machine is to have one."""
    initrd: Path | None = None
    """A start disk, for a kernel that cannot mount the image by itself. Ours can."""

    def boot_files(self) -> dict[str, Path]:
        """The files that only a boot needs, under their names in the jail."""
        return {"vmlinux": self.kernel, **({"initrd": self.initrd} if self.initrd else {})}

    def drives(self) -> dict[str, Path]:
        """The drives under their names in the jail."""
        return {"rootfs.img": self.rootfs, "agent.img": self.agent}


@dataclass(frozen=True, slots=True)
class SnapshotFiles:
    """A paused machine's state and memory; unwritable, since every clone maps the memory."""

    vmstate: Path
    memory: Path
    scratch: Path | None = None
    """Pack of the scratch disk as the machine left it."""
    working_set: Runs = ()
    """What of the memory each clone writes to first."""


class FirecrackerMachine:
    """A jailed Firecracker process and its guest. Made by `FirecrackerLauncher`.

    `boot`, or `load` and then `resume`, are called once, `load` also after `stand_by` and `assign`; whatever fails,
    `destroy` removes what there is.
    """

    def __init__(self, jail: Jail, spec: MachineSpec, group: TaskGroup, release: Callable[[], None]) -> None:
        self.id = spec.id
        self.spec = spec
        self.vsock_path = jail.vsock
        self.greeted = False
        self.instance_started = 0.0
        """`time.perf_counter()` when Firecracker was told to start the guest."""
        self.load_ms = 0.0
        """How long Firecracker took to answer the load."""
        self.vmm = JailedVmm(jail, group)
        self._jail = jail
        self._release = release
        self._paused_in_place = False
        self._api: FirecrackerApi | None = None
        self._undo = UndoList()
        self._undo.add("user id", self._release_uid)

    @property
    def jail_id(self) -> str:
        """The name of its jail and control group: its own, or that of the jailed VMM it was made from."""
        return self._jail.vm_id

    @property
    def exited(self) -> anyio.Event:
        """Set when the VMM process has ended."""
        return self.vmm.exited

    def cpu_s(self) -> float:
        """See `Machine.cpu_s`."""
        return self.vmm.cpu_s()

    def memory_mib(self) -> float:
        """Host memory that it shares with no other machine, in MiB; 0 when it has ended."""
        return self.vmm.anonymous_mib()

    def last_words(self) -> str:
        """See `Machine.last_words`."""
        return self.vmm.last_words()

    async def boot(self, source: BootSource) -> None:
        """Start the guest's kernel. The agent answers some time later."""
        await self._start_vmm({**source.boot_files(), **source.drives()}, source.scratch)
        async with await self.vmm.api() as api:
            arguments = f"{_BOOT_ARGUMENTS} {source.extra_arguments} {_CONSOLE if source.console else _SILENT}"
            boot = {"kernel_image_path": "/vmlinux", "boot_args": arguments}
            if source.initrd:
                boot["initrd_path"] = "/initrd"
            await _configure(api, self.spec, boot, scratch=source.scratch is not None)
            self.instance_started = time.perf_counter()
            await api.put("/actions", {"action_type": "InstanceStart"})

    async def stand_by(self) -> None:
        """Start the jailed VMM and connect to it, before it is known for which guest."""
        await self._start_vmm({})
        self._api = await self.vmm.api()
        self._undo.add("connection", self._disconnect)

    def assign(self, spec: MachineSpec) -> None:
        """Name and size of the guest that a VMM standing by is now for."""
        self.id = spec.id
        self.spec = spec

    async def load(
        self, source: BootSource, snapshot: SnapshotFiles, version: FirecrackerVersion = OLDEST_VERSION
    ) -> None:
        """Restore a snapshot taken with the same drives, and leave it paused."""
        links = {**source.drives(), "vmstate": snapshot.vmstate, "memory": snapshot.memory}
        if self._api is None:
            await self._start_vmm(links, snapshot.scratch)
            self._api = await self.vmm.api()
        else:
            self._jail.limit(mem_mib=self.spec.mem_mib, vcpus=self.spec.vcpus)
            self._jail.link(links)
            if snapshot.scratch is not None:
                self._jail.add_scratch(snapshot.scratch)
        started = time.perf_counter()
        async with self._api as api:
            await api.call("PUT", "/snapshot/load", load_request(version), deadline_s=_LOAD_DEADLINE_S)
        self.load_ms = (time.perf_counter() - started) * 1000
        if snapshot.working_set:
            pages = (self.vmm.pid or 0, snapshot.memory, snapshot.working_set)
            try:
                await anyio.to_thread.run_sync(copy_working_set, *pages)
            except OSError as error:  # it only starts more slowly, or has ended, which shows soon enough
                _log.warning("the working set was not copied", id=self.id, error=str(error))

    async def find_working_set(self, memory: Path) -> Runs:
        """What of the memory that it was restored from it has written to by now. OSError."""
        return await anyio.to_thread.run_sync(find_working_set, self.vmm.pid or 0, memory)

    def weigh(self, percent: int) -> None:
        """Set its share of busy processors: 1 to 100, of a usual machine's. HostError."""
        self._jail.weigh(percent)

    async def limit_io(self, *, mbps: int, ops: int) -> None:
        """Set the rates of every drive anew: a snapshot brings those of its template."""
        drives = ("rootfs", "agent", *(("scratch",) if self.spec.scratch_mib else ()))
        async with await self.vmm.api() as api:
            for name in drives:
                await api.patch(f"/drives/{name}", {"drive_id": name, "rate_limiter": rate_limiter(mbps, ops)})

    async def resume(self, version: FirecrackerVersion | None = None) -> None:
        """Let a loaded or paused machine run. VmmError where this version's vsock would not survive it."""
        if self._paused_in_place and version is not None and not resume_after_pause_works(version):
            raise VmmError(f"Firecracker {version} loses its vsock when a machine is paused and resumed (#6100)")
        async with await self.vmm.api() as api:
            await api.patch("/vm", {"state": "Resumed"})

    async def snapshot(self, directory: Path) -> SnapshotFiles:
        """Pause, and move state and memory into `directory` on the same file system, owned by root, mode 0444."""
        async with await self.vmm.api() as api:
            self._paused_in_place = True
            await api.patch("/vm", {"state": "Paused"})
            body = {"snapshot_type": "Full", "snapshot_path": "/vmstate", "mem_file_path": "/memory"}
            await api.call("PUT", "/snapshot/create", body, deadline_s=_SNAPSHOT_DEADLINE_S)
        scratch = directory / "scratch" if self.spec.scratch_mib else None
        files = SnapshotFiles(directory / "vmstate", directory / "memory", scratch)
        for file in (files.vmstate, files.memory):
            (self._jail.root / file.name).rename(file)
            os.chown(file, 0, 0)
            file.chmod(0o444)
        if scratch is not None:
            await anyio.to_thread.run_sync(pack_sparse, self._jail.root / SCRATCH_NAME, scratch)
        return files

    async def destroy(self) -> None:
        """See `Machine.destroy`."""
        failure = await self._undo.unwind()
        if failure is not None:
            if isinstance(failure, MayflyError):
                raise failure
            raise HostError(f"{self.id} was not removed completely: {failure!r}", phase="destroy") from failure

    async def _start_vmm(self, links: dict[str, Path], scratch: Path | None = None) -> None:
        self._jail.make()
        self._undo.add("jail", self._remove_jail)  # only now is it ours
        self._jail.link(links)
        if scratch is not None:
            self._jail.add_scratch(scratch)
        self._undo.add("control group", self._remove_cgroup)
        self._undo.add("processes", self._end_processes)
        await self.vmm.start(self.spec.mem_mib, self.spec.vcpus)

    async def _end_processes(self) -> None:
        """Kill, and wait; what is in the jail goes meanwhile, for a killed VMM takes the kernel a while to end."""
        if self.vmm.pid is None:
            await self.vmm.kill()
            return
        with single_error():
            async with anyio.create_task_group() as group:
                group.start_soon(self._clear_jail)
                await self.vmm.kill()

    async def _clear_jail(self) -> None:
        with contextlib.suppress(HostError):  # something was still made in it; all of it is removed at the end
            await self._remove_jail()

    async def _disconnect(self) -> None:
        if self._api is not None:
            self._api.close()

    async def _remove_cgroup(self) -> None:
        await remove_cgroups(self._jail.options.cgroups, self._jail.cgroup)

    async def _remove_jail(self) -> None:
        if self._jail.directory.exists():
            await anyio.to_thread.run_sync(self._jail.remove)  # a busy disk must not hold up the others

    async def _release_uid(self) -> None:
        self._release()


def rate_limiter(mbps: int, ops: int) -> dict[str, Any]:
    """A drive's token buckets, refilled over a second; full ones allow a burst of one second's worth."""
    return {
        "bandwidth": {"size": mbps << 20, "refill_time": _REFILL_MS},
        "ops": {"size": ops, "refill_time": _REFILL_MS},
    }


async def _configure(api: FirecrackerApi, spec: MachineSpec, boot: dict[str, str], *, scratch: bool) -> None:
    await api.put("/machine-config", {"vcpu_count": spec.vcpus, "mem_size_mib": spec.mem_mib, "smt": False})
    await api.put("/boot-source", boot)
    for name in ("rootfs", "agent", *(("scratch",) if scratch else ())):
        await api.put(
            f"/drives/{name}",
            {
                "drive_id": name,
                "path_on_host": f"/{name}.img",
                "is_root_device": name == "rootfs",
                "is_read_only": name != "scratch",
                "io_engine": "Sync",
                "rate_limiter": rate_limiter(spec.io_mbps, spec.io_ops),
            },
        )
    await api.put("/vsock", {"guest_cid": 3, "uds_path": "/v.sock"})
    await api.put("/entropy", {})
