"""Templates and clones of real Firecrackers on this machine's KVM: damage, full disks, two builders, killed builders.

Guests need not run for this (software KVM lets them hang): nobody waits for an agent here, and what is snapshotted is a
machine that was paused soon after its start.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mayfly.errors import CapacityError, MayflyError
from mayfly.host.cgroups import CgroupLayout
from mayfly.host.paths import StatePaths
from mayfly.images.store import Store
from mayfly.model import HostInfo
from mayfly.node.parts import boot_sources, jailer_options, node_artefacts
from mayfly.pool import clone as clone_module
from mayfly.pool import pace as pace_module
from mayfly.pool import templates as templates_module
from mayfly.pool.budget import Budget
from mayfly.pool.clone import CloneState
from mayfly.pool.pool import Pool
from mayfly.pool.retention import KIND
from mayfly.pool.shelf import PoolTargets
from mayfly.pool.size import Size
from mayfly.pool.templates import Templates
from mayfly.vmm.firecracker import FirecrackerLauncher, UidRange
from mayfly.vmm.leftovers import cgroup_ids, jail_ids, remove_leftovers, remove_parents
from mayfly.vmm.machine import FirecrackerMachine
from mayfly.vmm.probe import device_problem

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from anyio.abc import TaskGroup

    from mayfly.vmm.jail import JailerOptions
    from mayfly.vmm.workingset import Runs

pytestmark = [pytest.mark.kvm, pytest.mark.root, pytest.mark.timeout(240)]

UID = 875_000 + os.getpid() % 50 * 100  # another run of the tests may go on beside this one
SMALL = Size(64, 1)
_LINKED = ("firecracker", "kernel", "image-python", "agent")
_MNT_DETACH = 2
WORKING_SET = ((2 << 20, 4096), (3 << 20, 8192))

BUILDER = """
import sys
from pathlib import Path
import anyio
from mayfly.host.paths import StatePaths
from mayfly.host.process import become_subreaper
from mayfly.images.store import Store
from mayfly.model import HostInfo
from mayfly.node.parts import jailer_options, node_artefacts
from mayfly.pool import templates as templates_module
from mayfly.pool.size import Size
from mayfly.pool.templates import Templates
from mayfly.vmm.firecracker import FirecrackerLauncher, UidRange

async def no_answer(self, machine):
    pass

async def settle(machine):
    print("built one", flush=True)
    await anyio.sleep(float(sys.argv[3]))

FirecrackerLauncher.first_answer = no_answer
templates_module.settle = settle
templates_module.try_clone = no_answer

async def main():
    become_subreaper()
    store = Store(StatePaths(Path(sys.argv[1])).make())
    artefacts = node_artefacts(store, verify=False)
    async with anyio.create_task_group() as group:
        launcher = FirecrackerLauncher(
            jailer_options(StatePaths(Path(sys.argv[1])), artefacts), artefacts.boot_source(),
            HostInfo(kind="kvm", firecracker=str(artefacts.version())), group, uids=UidRange(int(sys.argv[2]), 10),
        )
        templates = Templates(launcher, store, identity=artefacts.keys)
        print("key", templates.key(Size(64, 1)), flush=True)
        await templates.build(Size(64, 1))
        group.cancel_scope.cancel()
    print("done", flush=True)

anyio.run(main)
"""


@dataclass(frozen=True)
class Place:
    """A state directory of the test's own, and what is made of it."""

    paths: StatePaths
    options: JailerOptions

    @property
    def store(self) -> Store:
        return Store(self.paths)

    def left(self) -> tuple[set[str], set[str], list[str]]:
        """Jails, control groups, and processes of the users that only machines of these tests have."""
        return jail_ids(self.options), cgroup_ids(self.options), _vmms()

    def templates(self) -> list[str]:
        return [entry.key for entry in self.store.list() if entry.kind == KIND]

    @asynccontextmanager
    async def launcher(self, *, uids: int = 50, **changes: Any) -> AsyncIterator[FirecrackerLauncher]:
        artefacts = node_artefacts(self.store, verify=False)
        options = self.options if not changes else replace(self.options, **changes)
        async with anyio.create_task_group() as group:
            yield _launcher(options, artefacts, self.store, group, uids)
            group.cancel_scope.cancel()


NOTHING: tuple[set[str], set[str], list[str]] = (set(), set(), [])


def _launcher(options: Any, artefacts: Any, store: Store, group: TaskGroup, uids: int) -> FirecrackerLauncher:
    info = HostInfo(kind="kvm", firecracker=str(artefacts.version()))
    sources = boot_sources(artefacts, store, "kvm")
    return FirecrackerLauncher(options, artefacts.boot_source(), info, group, uids=UidRange(UID, uids), sources=sources)


def _vmms() -> list[str]:
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{name}").stat().st_uid in range(UID, UID + 100) and Path(f"/proc/{name}/exe").readlink():
                found.append(name)
    return found


def _fill_store(paths: StatePaths, ready: StatePaths, copy: Callable[[str, str], object]) -> None:
    for kind in _LINKED:
        current = ready.store / kind / "current"
        if current.exists():
            key = current.readlink().name
            shutil.copytree(current.parent / key, paths.store / kind / key, copy_function=copy)
            (paths.store / kind / "current").symlink_to(key)


async def _found(*_: object) -> Runs:
    return WORKING_SET


@pytest.fixture(autouse=True)
def _guests_need_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(*_: object) -> None:
        return

    monkeypatch.setattr(FirecrackerLauncher, "first_answer", nothing)
    monkeypatch.setattr(FirecrackerMachine, "resume", nothing)
    monkeypatch.setattr(templates_module, "settle", nothing)
    monkeypatch.setattr(templates_module, "try_clone", _found)
    monkeypatch.setattr(clone_module, "greet_machine", nothing)
    monkeypatch.setattr(clone_module, "warm_machine", nothing)
    monkeypatch.setattr(pace_module, "_QUIET_S", 0.0)
    monkeypatch.setattr(pace_module, "_QUIET_FOR_TEMPLATE_S", 0.0)


@pytest.fixture
def ready(ready_state: StatePaths) -> StatePaths:
    if os.geteuid() != 0:
        pytest.skip("root, which the jailer needs")
    if problem := device_problem():
        pytest.skip(f"KVM: {problem}")
    return ready_state


@pytest.fixture
def place(ready: StatePaths) -> Iterator[Place]:
    root = Path(tempfile.mkdtemp(prefix=".mft-", dir=ready.root.parent))
    try:
        paths = StatePaths(root).make()
        _fill_store(paths, ready, os.link)
        yield from _used(paths)
    finally:
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def tiny(ready: StatePaths) -> Iterator[Place]:
    """A state directory on a file system of its own, with 200 MiB beside the artefacts."""
    root = Path(tempfile.mkdtemp(prefix="mft-"))
    libc = ctypes.CDLL(None, use_errno=True)
    held = sum(Store(ready).current(kind).size for kind in _LINKED if (ready.store / kind / "current").exists())
    options = f"size={held + (200 << 20)},mode=700".encode()
    if libc.mount(b"tmpfs", os.fsencode(root), b"tmpfs", 0, options) != 0:
        root.rmdir()
        pytest.skip("the right to mount a tmpfs")
    try:
        paths = StatePaths(root).make()
        _fill_store(paths, ready, shutil.copy2)
        yield from _used(paths)
    finally:
        libc.umount2(os.fsencode(root), _MNT_DETACH)
        root.rmdir()


def _used(paths: StatePaths) -> Iterator[Place]:
    place = Place(paths, jailer_options(paths, node_artefacts(Store(paths), verify=False)))
    yield place
    left = place.left()
    anyio.run(remove_leftovers, place.options)
    remove_parents(place.options)
    assert left == NOTHING


async def _build(place: Place, launcher: FirecrackerLauncher, size: Size = SMALL, **rest: Any) -> Templates:
    artefacts = node_artefacts(place.store, verify=False)
    templates = Templates(launcher, place.store, identity=artefacts.keys, **rest)
    await templates.build(size)
    return templates


def _fresh(place: Place, launcher: FirecrackerLauncher, **rest: Any) -> Templates:
    """As another start of the node sees the store."""
    return Templates(launcher, place.store, identity=node_artefacts(place.store, verify=False).keys, **rest)


def _spoil(path: Path, how: str) -> None:
    before = path.stat()
    path.chmod(0o600)
    if how == "truncated":
        os.truncate(path, before.st_size // 2)
    else:
        with path.open("r+b") as file:
            file.seek(before.st_size // 2)
            byte = file.read(1)
            file.seek(before.st_size // 2)
            file.write(bytes([byte[0] ^ 1]))
    path.chmod(0o444)
    if how == "bit flipped, its time kept":
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_clone_has_its_own_copies_of_what_it_writes_first_before_it_runs(place: Place) -> None:
    async def look() -> None:
        async with place.launcher() as launcher:
            await _build(place, launcher)
            snapshot = await _fresh(place, launcher).prepare(SMALL)
            assert snapshot is not None
            assert snapshot.working_set == WORKING_SET
            machine = await launcher.load(SMALL.spec("vm-1"), snapshot)
            plain = await launcher.load(SMALL.spec("vm-2"), replace(snapshot, working_set=()))
            try:
                own, few = [set(_pages(await each.find_working_set(snapshot.memory))) for each in (machine, plain)]
                assert own - few == set(_pages(WORKING_SET))
                assert machine.memory_mib() > plain.memory_mib()
            finally:
                await machine.destroy()
                await plain.destroy()

    anyio.run(look)


def _pages(runs: Runs) -> list[int]:
    return [page for at, length in runs for page in range(at, at + length, 4096)]


@pytest.mark.parametrize("name", ["vmstate", "memory"])
@pytest.mark.parametrize("how", ["truncated", "bit flipped", "bit flipped, its time kept"])
def test_a_damaged_template_is_noticed_and_made_again(place: Place, name: str, how: str) -> None:
    async def work() -> None:
        async with place.launcher() as launcher:
            await _build(place, launcher)
            (key,) = place.templates()
            _spoil(place.paths.store / KIND / key / name, how)
            templates = _fresh(place, launcher, verify=True)
            assert await templates.prepare(SMALL) is None
            files = await templates.build(SMALL)
            place.store.verify(place.store.get(KIND, key))  # type: ignore[arg-type]
            machine = await launcher.load(SMALL.spec("vm-again"), files)
            await machine.destroy()

    anyio.run(work)


@pytest.mark.parametrize("how", ["truncated", "bit flipped", "another version"])
def test_firecracker_refuses_a_spoilt_state_and_the_pool_boots_and_makes_the_template_again(
    place: Place, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with place.launcher() as launcher:
            templates = await _build(place, launcher)
            files = templates.find(SMALL)
            assert files is not None
            if how == "another version":
                files.vmstate.chmod(0o600)
                with files.vmstate.open("r+b") as file:
                    file.write(b"\xff" * 16)
                files.vmstate.chmod(0o444)
            else:
                _spoil(files.vmstate, how)
            pool = Pool(launcher, templates, PoolTargets(1, 0))
            machine = await pool.launch(SMALL.spec("ex-one"))
            assert isinstance(machine, FirecrackerMachine), "booted, since the snapshot is refused"
            await machine.destroy()
            assert templates.find(SMALL) is None
            await pool._make_template(SMALL, pool._shelves[SMALL])
            clone = await pool.launch(SMALL.spec("ex-two"))
            assert isinstance(clone, clone_module.Clone)
            await clone.destroy()
            await pool.drain()

    anyio.run(work)


@pytest.mark.parametrize("part", ["firecracker", "format", "processor", "preload", "image", "size"])
def test_a_template_of_other_parts_is_another_template(
    place: Place, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with place.launcher() as launcher:
            keys = node_artefacts(place.store, verify=False).keys("python")
            changed = {
                "firecracker": ("other", *keys[1:]),
                "format": (keys[0], "format 9", *keys[2:]),
                "image": (*keys[:3], "other", *keys[4:]),
                "preload": (*keys[:-1], "preload numpy"),
            }.get(part, keys)
            before = Templates(launcher, place.store, identity=lambda _: keys).key(SMALL)
            if part == "processor":
                monkeypatch.setattr(templates_module, "_cpu_model", lambda: "another")
            size = Size(64, 1, scratch_mib=16) if part == "size" else SMALL
            assert Templates(launcher, place.store, identity=lambda _: changed).key(size) != before

    anyio.run(work)


def test_a_clone_with_a_disk_gets_one_of_its_own_that_cannot_grow(place: Place) -> None:
    async def work() -> None:
        size = Size(64, 1, scratch_mib=32)
        async with place.launcher() as launcher:
            templates = await _build(place, launcher, size)
            files = templates.find(size)
            assert files is not None
            assert files.scratch is not None
            assert files.scratch.stat().st_size < 4 << 20
            machines = [await launcher.load(size.spec(f"vm-{number}"), files) for number in range(2)]
            disks = [machine._jail.root / "scratch.img" for machine in machines]
            assert [disk.stat().st_size for disk in disks] == [32 << 20] * 2
            assert len({disk.stat().st_ino for disk in disks}) == 2
            assert [disk.stat().st_uid for disk in disks] == [machine._jail.uid for machine in machines]
            await machines[0].limit_io(mbps=1, ops=100)
            async with await machines[0].vmm.api() as api:
                drives = {drive["drive_id"]: drive for drive in (await api.get("/vm/config"))["drives"]}
            assert {name: drive["is_read_only"] for name, drive in drives.items()} == {
                "rootfs": True, "agent": True, "scratch": False,
            }  # fmt: skip
            assert {drive["rate_limiter"]["bandwidth"]["size"] for drive in drives.values()} == {1 << 20}
            for machine in machines:
                await machine.destroy()

    anyio.run(work)


def test_two_processes_make_a_template_once(place: Place) -> None:
    builders = [_start(place, UID + 10 * number, "0.5") for number in range(2)]
    said = [builder.communicate(timeout=60)[0].decode() for builder in builders]
    assert [builder.returncode for builder in builders] == [0, 0]
    assert sum("built one" in text for text in said) == 1
    assert all("done" in text for text in said)
    assert len(place.templates()) == 1


def test_a_builder_that_is_killed_half_way_leaves_no_template_and_is_in_nobodys_way(place: Place) -> None:
    with _start(place, UID, "60") as builder:
        assert builder.stdout is not None
        assert builder.stdout.readline().startswith(b"key ")
        assert builder.stdout.readline() == b"built one\n"
        builder.send_signal(signal.SIGKILL)
    assert place.templates() == []
    anyio.run(remove_leftovers, place.options)

    async def work() -> None:
        async with place.launcher() as launcher:
            templates = _fresh(place, launcher)
            assert templates.sweep() == 1
            await templates.build(SMALL)

    anyio.run(work)
    assert len(place.templates()) == 1
    assert list(place.paths.build.glob("snapshot-*")) == []


def _start(place: Place, uid: int, settle_s: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", BUILDER, str(place.paths.root), str(uid), settle_s]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)


def test_the_budget_takes_what_was_used_longest_ago_and_never_what_is_in_use(place: Place) -> None:
    sizes = [Size(64, 1), Size(65, 1), Size(66, 1)]

    async def work() -> None:
        async with place.launcher() as launcher:
            templates = await _build(place, launcher, sizes[0])
            await templates.build(sizes[1])
            keys = [templates.key(size) for size in sizes]
            # another start, which has used none of them yet: nothing goes while the budget holds
            roomy = _fresh(place, launcher, budget_bytes=1 << 40)
            await roomy.build(sizes[2])
            assert set(place.templates()) == set(keys)
            os.utime(place.paths.store / KIND / f".used-{keys[1]}", (1, 1))
            tight = _fresh(place, launcher, budget_bytes=1)
            assert await tight.prepare(sizes[0]) is not None
            tight.forget(sizes[2])
            await tight.build(sizes[2])
            assert set(place.templates()) == {keys[0], keys[2]}
            assert {info.key for info in tight.list() if info.current} == {keys[0], keys[2]}

    anyio.run(work)


def test_a_template_that_another_process_removed_is_made_again(place: Place) -> None:
    async def work() -> None:
        async with place.launcher() as launcher:
            templates = await _build(place, launcher)
            entry = place.store.get(KIND, templates.key(SMALL))
            assert entry is not None
            place.store.remove(entry)
            pool = Pool(launcher, templates, PoolTargets(1, 0))
            machine = await pool.launch(SMALL.spec("ex-one"))
            assert isinstance(machine, FirecrackerMachine)
            await machine.destroy()
            assert templates.find(SMALL) is None
            await templates.build(SMALL)
            await pool.drain()

    anyio.run(work)


def test_a_disk_that_is_full_while_a_template_is_made_is_a_typed_error_and_leaves_nothing(
    tiny: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with tiny.launcher() as launcher:
            templates = _fresh(tiny, launcher)
            with pytest.raises(MayflyError, match=r"no space for a template of 512 MiB: 576 MiB needed"):
                await templates.build(Size(512, 1))
            # and where it only shows when Firecracker writes
            monkeypatch.setattr(templates_module.Templates, "_require_space", lambda *_: None)
            free = shutil.disk_usage(tiny.paths.root).free
            with (tiny.paths.root / "filler").open("wb") as filler:
                filler.write(bytes(free - (20 << 20)))
            with pytest.raises((MayflyError, OSError)):
                await templates.build(Size(128, 1))
            assert tiny.left() == NOTHING
            assert tiny.templates() == []
            assert list(tiny.paths.build.glob("snapshot-*")) == []
            (tiny.paths.root / "filler").unlink()
            await templates.build(SMALL)

    anyio.run(work)


def test_a_disk_that_is_full_while_a_clone_is_made_ends_neither_the_pool_nor_the_node(tiny: Place) -> None:
    async def work() -> None:
        async with tiny.launcher() as launcher:
            templates = await _build(tiny, launcher)
            pool = Pool(launcher, templates, PoolTargets(2, 0))
            pool.want(SMALL)
            free = shutil.disk_usage(tiny.paths.root).free
            with (tiny.paths.root / "filler").open("wb") as filler:
                filler.write(bytes(free - (1 << 20)))
            await pool._fill_once()
            assert pool.state()["sizes"][0]["failures"] == 1
            assert tiny.left() == NOTHING
            with pytest.raises(MayflyError):
                await pool.launch(SMALL.spec("ex-full"))
            assert tiny.left() == NOTHING
            (tiny.paths.root / "filler").unlink()
            assert templates.find(SMALL) is not None, "a full disk says nothing against the template"
            pool._shelves[SMALL].retry_at = 0.0
            await pool._fill_once()
            assert pool.state()["sizes"][0]["loaded"] == 1
            await pool.drain()

    anyio.run(work)


def test_when_all_user_ids_are_in_use_that_is_said_and_the_next_free_one_is_used(place: Place) -> None:
    async def work() -> None:
        async with place.launcher(uids=2) as launcher:
            templates = await _build(place, launcher)
            files = templates.find(SMALL)
            assert files is not None
            machines = [await launcher.load(SMALL.spec(f"vm-{number}"), files) for number in range(2)]
            with pytest.raises(CapacityError, match="user ids"):
                await launcher.load(SMALL.spec("vm-more"), files)
            await machines[0].destroy()
            machines[0] = await launcher.load(SMALL.spec("vm-next"), files)
            for machine in machines:
                await machine.destroy()

    anyio.run(work)


def test_without_control_groups_clones_are_made_and_removed_all_the_same(place: Place) -> None:
    async def work() -> None:
        async with place.launcher(cgroups=CgroupLayout(0, {})) as launcher:
            templates = await _build(place, launcher)
            files = templates.find(SMALL)
            assert files is not None
            machine = await launcher.load(SMALL.spec("vm-free"), files)
            assert machine.vmm.pid is not None
            await machine.destroy()

    anyio.run(work)


def _kill(clone: Any) -> None:
    os.kill(clone._machine.vmm.pid, signal.SIGKILL)


@pytest.mark.parametrize("state", ["loaded", "primed", "running"])
def test_a_vmm_that_is_killed_in_whatever_state_its_clone_is_goes_without_a_trace(place: Place, state: str) -> None:
    async def work() -> None:
        async with place.launcher() as launcher:
            templates = await _build(place, launcher)
            pool = Pool(launcher, templates, PoolTargets(1, 1 if state == "primed" else 0))
            pool.want(SMALL)
            for _ in range(3):
                await pool._fill_once()
            clones = list(pool._clones.values())
            if state == "running":
                clones = [await pool.launch(SMALL.spec("ex-run"))]  # type: ignore[list-item]
            for clone in clones:
                _kill(clone)
                with anyio.fail_after(5):
                    await clone.exited.wait()
            if state == "running":
                assert clones[0].state is CloneState.RUNNING
                await clones[0].destroy()
            else:
                machine = await pool.launch(SMALL.spec("ex-next"))
                assert machine.id not in {clone.id for clone in clones}
                await machine.destroy()
            assert all(clone.state is CloneState.GONE for clone in clones)
            await pool.drain()
            assert place.left() == NOTHING

    anyio.run(work)


def test_clones_that_die_while_they_wait_are_removed_without_a_claim(place: Place) -> None:
    async def work() -> None:
        async with place.launcher() as launcher:
            templates = await _build(place, launcher)
            pool = Pool(launcher, templates, PoolTargets(2, 0), Budget(mem_mib=1024, machines=4))
            pool.want(SMALL)
            for _ in range(2):
                await pool._fill_once()
            for clone in list(pool._clones.values()):
                _kill(clone)
                await clone.exited.wait()
            for _ in range(2):
                pool._shelves[SMALL].retry_at = 0.0
                await pool._fill_once()
            assert place.left() == NOTHING
            await pool.drain()

    anyio.run(work)


def test_fifty_claims_at_once_and_a_stop_in_the_middle_leave_nothing(place: Place) -> None:
    async def work() -> None:
        async with place.launcher(uids=100) as launcher:
            templates = await _build(place, launcher)
            pool = Pool(launcher, templates, PoolTargets(4, 0))
            given: list[Any] = []

            async def claim(number: int) -> None:
                given.append(await pool.launch(SMALL.spec(f"ex-{number}")))

            async with anyio.create_task_group() as group:
                group.start_soon(pool.fill)
                with anyio.fail_after(120):
                    async with anyio.create_task_group() as claims:
                        for number in range(50):
                            claims.start_soon(claim, number)
                assert len({machine.id for machine in given}) == 50
                await pool.drain()
                group.cancel_scope.cancel()
            started = time.monotonic()
            async with anyio.create_task_group() as ends:
                for machine in given:
                    ends.start_soon(machine.destroy)
            assert time.monotonic() - started < 60
            assert place.left() == NOTHING

    anyio.run(work)


READ_ONLY = """
import sys
from pathlib import Path
import anyio
from mayfly.errors import MayflyError
from mayfly.host.paths import StatePaths
from mayfly.host.process import become_subreaper
from mayfly.images.store import Store
from mayfly.model import HostInfo
from mayfly.node.parts import jailer_options, node_artefacts
from mayfly.vmm.firecracker import FirecrackerLauncher, UidRange
from mayfly.vmm.launcher import MachineSpec

async def main():
    become_subreaper()
    paths = StatePaths(Path(sys.argv[1]))
    artefacts = node_artefacts(Store(paths), verify=False)
    async with anyio.create_task_group() as group:
        launcher = FirecrackerLauncher(
            jailer_options(paths, artefacts), artefacts.boot_source(), HostInfo(kind="kvm", firecracker=""), group,
            uids=UidRange(int(sys.argv[2]), 2), agent_deadline_s=1.0,
        )
        try:
            await launcher.launch(MachineSpec(id="vm-ro", mem_mib=64))
        except MayflyError as error:
            print(error.code, error.message.splitlines()[0])
        group.cancel_scope.cancel()

anyio.run(main)
"""


def test_control_groups_that_are_read_only_are_a_typed_error_and_nothing_stays(place: Place) -> None:
    if place.options.cgroups.version == 0 or shutil.which("unshare") is None:
        pytest.skip("control groups, and unshare to see them read-only")
    freeze = " && ".join(f"mount -o remount,bind,ro {path}" for path in set(place.options.cgroups.mounts.values()))
    command = ["unshare", "--mount", "sh", "-c", f'{freeze} && exec "$@"', "sh"]
    command += [sys.executable, "-c", READ_ONLY, str(place.paths.root), str(UID)]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    if b"permission denied" in done.stderr.lower():
        pytest.skip("the right to mount")
    assert done.stdout.startswith(b"vmm "), (done.stdout, done.stderr)
    assert place.left() == NOTHING
