"""Templates: a machine of one size, booted once until it has settled, and kept as a snapshot in the store.

A template is good for exactly what it was made with: kernel, image and what its interpreter has imported, agent,
Firecracker and its snapshot format, processor, size, kernel arguments. All of it is in its key, so a changed part
means another template.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import msgspec
import structlog

from mayfly.errors import CapacityError, CorruptError, DiskFullError, MayflyError, NotFoundError, VmmTimeoutError
from mayfly.host.locks import try_lock
from mayfly.images.store import remove_tree
from mayfly.pool.holes import dig_holes
from mayfly.pool.retention import KIND, disk_bytes, last_used, mark_used, prune, remove_entry
from mayfly.pool.size import Size
from mayfly.pool.trial import try_clone
from mayfly.vmm.machine import SnapshotFiles

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from mayfly.images.store import Entry, Store
    from mayfly.vmm.firecracker import FirecrackerLauncher
    from mayfly.vmm.launcher import MachineSpec
    from mayfly.vmm.machine import FirecrackerMachine
    from mayfly.vmm.workingset import Runs

__all__ = ["TemplateInfo", "Templates", "settle"]

_log = structlog.get_logger("mayfly.pool")

_FORMAT = "3"
_MEM_MAX_MIB = 2048
"""A larger machine is booted each time: its memory file would cost more than it saves."""
_SETTLE_DEADLINE_S = 240.0  # what is imported beforehand takes a minute where the processor is emulated
_SETTLE_WINDOW_S = 0.4
_SETTLED_CPU_S = 0.03
_OTHER_BUILDER_S = 180.0
_LOCK_POLL_S = 0.1
_MARK_EVERY_S = 30.0
_SPARE_BYTES = 64 << 20
_WORK = "snapshot-"
_WORKING_SET = "working-set.json"
_WORKING_SET_MAX_BYTES = 1 << 20


class TemplateInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One template in the store. `current`: made of the parts that this node has now. Times are seconds since 1970."""

    key: str
    image: str
    mem_mib: int
    vcpus: int
    scratch_mib: int
    bytes: int
    disk_bytes: int
    created: str
    last_used: float
    current: bool


class Templates:
    """The templates of one node. `identity` names, for an image, everything but the size that a template depends on.

    At most `budget_bytes` of the store are used; those used longest ago go first, those in use stay. With `verify`,
    every byte is hashed before a template of an earlier start is used; without, sizes and times are looked at.
    """

    def __init__(
        self,
        launcher: FirecrackerLauncher,
        store: Store,
        *,
        identity: Callable[[str], tuple[str, ...]],
        budget_bytes: int = 4 << 30,
        verify: bool = False,
    ) -> None:
        self._launcher = launcher
        self._store = store
        self._identity = identity
        self._common = (_FORMAT, launcher.source.extra_arguments, _cpu_model())
        self._budget = budget_bytes
        self._verify = verify
        self._known: dict[Size, tuple[SnapshotFiles, Entry]] = {}
        self._marked: dict[Size, float] = {}
        self._building: dict[Size, anyio.Lock] = {}
        self.making: set[str] = set()
        """Ids of the machines that templates are being made from."""

    def key(self, size: Size) -> str:
        """The store's key of the template of this size. SetupError for an image that is not there."""
        numbers = (str(size.mem_mib), str(size.vcpus), str(size.scratch_mib))
        parts = [*self._common, *self._identity(size.image), size.image, *numbers]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]

    @staticmethod
    def worthwhile(size: Size) -> bool:
        """Whether machines of this size come from a template at all."""
        return size.mem_mib <= _MEM_MAX_MIB

    def find(self, size: Size) -> SnapshotFiles | None:
        """The template, if this node knows it to be good; `prepare` looks for one in the store."""
        known = self._known.get(size)
        if known is None:
            return None
        now = time.monotonic()
        if now - self._marked.get(size, -_MARK_EVERY_S) >= _MARK_EVERY_S:
            self._marked[size] = now
            mark_used(known[1])
        return known[0]

    async def at_hand(self, size: Size) -> SnapshotFiles | None:
        """The template, if finding it takes next to no time: for one who waits for a machine."""
        return self.find(size) if self._verify else await self.prepare(size)

    async def prepare(self, size: Size) -> SnapshotFiles | None:
        """The template, if it has been made and is undamaged; a damaged one is taken away, to be made again."""
        if (known := self.find(size)) is not None:
            return known
        try:
            entry = await anyio.to_thread.run_sync(self._checked, size)
        except CorruptError as error:
            _log.warning("template is damaged and will be made again", error=str(error))
            self.forget(size)
            return None
        return None if entry is None else self._remember(size, entry)

    async def build(self, size: Size) -> SnapshotFiles:
        """Boot a machine, wait until it has settled, and keep its snapshot. MayflyError or OSError when that fails.

        One at a time for each size, over all processes that share the store: who comes second takes what was made.
        """
        async with self._building.setdefault(size, anyio.Lock()), self._only_builder(self.key(size)):
            if (found := await self.prepare(size)) is not None:
                return found
            self._require_space(size)
            directory = self._store.build_path / f"{_WORK}{_own_name()}-{secrets.token_hex(4)}"
            directory.mkdir(mode=0o700, parents=True)
            started = time.monotonic()
            try:
                snapshot = await self._take_snapshot(size, directory)
                await anyio.to_thread.run_sync(dig_holes, directory / "memory")
                await self._find_working_set(size, snapshot)
                entry = await anyio.to_thread.run_sync(self._install, size, directory)
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(remove_tree, directory)
            _log.info("template made", key=entry.key, s=round(time.monotonic() - started, 1), **size._asdict())
            return self._remember(size, entry)

    def forget(self, size: Size) -> None:
        """A template whose clones do not work: take it out of the store, so that it is made again."""
        self._known.pop(size, None)
        try:
            entry = self._store.get(KIND, self.key(size))
        except MayflyError:
            return  # damaged; making it again replaces it
        if entry is not None:
            self._store.quarantine(entry)

    def list(self) -> list[TemplateInfo]:
        """Every template in the store, those of other versions included. Blocking."""
        entries = [entry for entry in self._store.list() if entry.kind == KIND]
        return [self._info(entry) for entry in sorted(entries, key=last_used, reverse=True)]

    def remove(self, key: str) -> None:
        """Delete one by its whole key. Blocking. NotFoundError; CapacityError while it is being made."""
        for size, lock in self._building.items():
            if lock.locked() and self.key(size) == key:
                raise CapacityError(f"template {key[:12]} is being made", retry_after_s=10.0)
        entry = self._store.get(KIND, key)
        if entry is None:
            raise NotFoundError(f"no template {key} is in the store", field="key")
        for size, (_, known) in list(self._known.items()):
            if known.key == key:
                del self._known[size]
        remove_entry(self._store, entry)

    def sweep(self) -> int:
        """Remove what builds that were killed have left; returns how many. Blocking."""
        count = 0
        for path in self._store.build_path.glob(f"{_WORK}*"):
            name = "-".join(path.name.removeprefix(_WORK).split("-")[:2])
            if not _is_alive(name):
                remove_tree(path)
                count += 1
        return count

    def _checked(self, size: Size) -> Entry | None:
        entry = self._store.get(KIND, self.key(size))
        if entry is not None and self._verify:
            self._store.verify(entry)
        return entry

    @contextlib.asynccontextmanager
    async def _only_builder(self, key: str) -> AsyncIterator[None]:
        """The lock of this template between processes; the kernel releases it however its holder ends."""
        path = self._store.build_path / f"template-{key}.lock"
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            with anyio.fail_after(_OTHER_BUILDER_S):
                while (descriptor := try_lock(path)) is None:  # noqa: ASYNC110 - between processes
                    await anyio.sleep(_LOCK_POLL_S)
        except TimeoutError as error:
            raise VmmTimeoutError("another process has been making this template for minutes") from error
        try:
            yield
        finally:
            os.close(descriptor)

    def _require_space(self, size: Size) -> None:
        free = shutil.disk_usage(self._store.build_path).free
        needed = (size.mem_mib << 20) + _SPARE_BYTES
        if free < needed:
            raise DiskFullError(
                f"no space for a template of {size.mem_mib} MiB: {needed >> 20} MiB needed, {free >> 20} MiB free",
                hint="`mayfly template rm` removes templates; MAYFLY_HOME may be a directory on another disk",
            )

    async def _take_snapshot(self, size: Size, directory: Path) -> SnapshotFiles:
        async with self._made_from(size, self._launcher.launch) as machine:
            await settle(machine)
            return await machine.snapshot(directory)

    async def _find_working_set(self, size: Size, snapshot: SnapshotFiles) -> None:
        """Let a first clone live; what goes wrong with that goes wrong with the next again, and is said there."""
        try:
            async with self._made_from(size, partial(self._launcher.load, snapshot=snapshot)) as machine:
                runs = await try_clone(machine, snapshot.memory)
        except (MayflyError, OSError) as error:
            _log.warning("the working set of a template was not found", error=str(error), **size._asdict())
            return
        snapshot.memory.with_name(_WORKING_SET).write_bytes(msgspec.json.encode(runs))

    @contextlib.asynccontextmanager
    async def _made_from(
        self, size: Size, make: Callable[[MachineSpec], Awaitable[FirecrackerMachine]]
    ) -> AsyncIterator[FirecrackerMachine]:
        """A machine that a template is made from, or with; destroyed at the end."""
        spec = size.spec(f"tpl-{secrets.token_hex(8)}")
        self.making.add(spec.id)
        try:
            machine = await make(spec)
            try:
                yield machine
            finally:
                with anyio.CancelScope(shield=True):
                    await machine.destroy()
        finally:
            self.making.discard(spec.id)

    def _install(self, size: Size, directory: Path) -> Entry:
        def move(target: Path) -> dict[str, str]:
            for path in list(directory.iterdir()):
                shutil.move(path, target / path.name)
            return {name: str(value) for name, value in size._asdict().items()}

        entry = self._store.build(KIND, self.key(size), move)
        mark_used(entry)
        in_use = {known.key for _, known in self._known.values()}
        prune(self._store, budget_bytes=self._budget, keep={entry.key, *in_use})
        return entry

    def _remember(self, size: Size, entry: Entry) -> SnapshotFiles:
        scratch = entry.file("scratch") if size.scratch_mib else None
        files = SnapshotFiles(entry.file("vmstate"), entry.file("memory"), scratch, _working_set(entry))
        self._known[size] = (files, entry)
        mark_used(entry)
        return files

    def _info(self, entry: Entry) -> TemplateInfo:
        size = _size_of(entry)
        return TemplateInfo(
            key=entry.key,
            **size._asdict(),
            bytes=entry.size,
            disk_bytes=disk_bytes(entry),
            created=entry.record.created,
            last_used=round(last_used(entry), 3),
            current=self._is_current(size, entry.key),
        )

    def _is_current(self, size: Size, key: str) -> bool:
        try:
            return self.key(size) == key
        except MayflyError:  # of an image that is not here any more
            return False


def _working_set(entry: Entry) -> Runs:
    """What was found when the template was made; nothing where it was not."""
    try:
        with entry.file(_WORKING_SET).open("rb") as file:
            return msgspec.json.decode(file.read(_WORKING_SET_MAX_BYTES), type=tuple[tuple[int, int], ...])
    except (CorruptError, OSError, msgspec.MsgspecError):
        return ()


def _size_of(entry: Entry) -> Size:
    """The size in the entry's own words; zeros for one that an older version made."""
    meta = entry.meta
    try:
        numbers = [int(meta.get(name, "0")) for name in ("mem_mib", "vcpus", "scratch_mib")]
    except ValueError:
        numbers = [0, 0, 0]
    return Size(numbers[0], numbers[1], meta.get("image", "python"), numbers[2])


async def settle(machine: FirecrackerMachine) -> None:
    """Wait until the guest is idle: boot done, interpreter warm. VmmTimeoutError when it never is."""
    try:
        with anyio.fail_after(_SETTLE_DEADLINE_S):
            before = machine.cpu_s()
            while True:
                await anyio.sleep(_SETTLE_WINDOW_S)
                now = machine.cpu_s()
                if now - before <= _SETTLED_CPU_S:
                    return
                before = now
    except TimeoutError as error:
        raise VmmTimeoutError(f"the template's machine was still busy after {_SETTLE_DEADLINE_S:g} s") from error


def _own_name() -> str:
    """This process, also when its pid is used again."""
    return f"{os.getpid()}-{_started(os.getpid())}"


def _is_alive(name: str) -> bool:
    pid, _, started = name.partition("-")
    return pid.isdecimal() and _started(int(pid)) == started


def _started(pid: int) -> str:
    """When the process started, in ticks since boot; empty when there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _cpu_model() -> str:
    wanted = ("vendor_id", "cpu family", "model\t", "model name", "stepping", "flags")
    with Path("/proc/cpuinfo").open() as file:
        lines = file.read(16384).split("\n\n")[0].splitlines()
    return "\n".join(line for line in lines if line.startswith(wanted))
