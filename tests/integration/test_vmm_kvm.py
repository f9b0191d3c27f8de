"""The control plane on a real /dev/kvm: jails, control groups and processes of real Firecrackers, seen from the host.

The guests need not run (software KVM lets them hang), so nothing here waits for an agent.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest

from mayfly.errors import HostError, MayflyError, SetupError, VmmError
from mayfly.host.cgroups import read_cgroup_pids
from mayfly.host.paths import StatePaths
from mayfly.images.store import Store
from mayfly.model import HostInfo
from mayfly.node.parts import jailer_options, node_artefacts
from mayfly.vmm.firecracker import FirecrackerLauncher, UidRange
from mayfly.vmm.jail import Jail, JailerOptions
from mayfly.vmm.launcher import MachineSpec
from mayfly.vmm.leftovers import cgroup_ids, jail_ids, remove_leftovers
from mayfly.vmm.machine import BootSource, FirecrackerMachine, SnapshotFiles
from mayfly.vmm.probe import device_problem

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

pytestmark = [pytest.mark.kvm, pytest.mark.root]

UIDS = 200
UID = 880_000 + os.getpid() % 90 * UIDS  # another run of the tests may go on beside this one
MEM_MIB = 128

DOOMED_NODE = """
import sys
from pathlib import Path
import anyio
from mayfly.host.paths import StatePaths
from mayfly.host.process import become_subreaper
from mayfly.images.store import Store
from mayfly.node.parts import jailer_options, node_artefacts
from mayfly.vmm.jail import Jail
from mayfly.vmm.launcher import MachineSpec
from mayfly.vmm.machine import FirecrackerMachine

async def main():
    become_subreaper()
    paths = StatePaths(Path(sys.argv[1]))
    artefacts = node_artefacts(Store(paths), verify=False)
    options, source = jailer_options(paths, artefacts), artefacts.boot_source()
    async with anyio.create_task_group() as group:
        for number in range(3):
            spec = MachineSpec(id=f"doomed-{number}", mem_mib=128)
            machine = FirecrackerMachine(Jail(options, spec.id, int(sys.argv[2]) + number), spec, group, lambda: None)
            if number == 2:
                print("launching the third", flush=True)
            await machine.boot(source)
        await anyio.sleep_forever()

anyio.run(main)
"""


@dataclass(frozen=True)
class Bench:
    """Where the machines of a test live."""

    root: Path
    options: JailerOptions
    source: BootSource

    def left(self) -> tuple[set[str], set[str], set[int]]:
        """Jails, control groups and processes that exist now."""
        groups = cgroup_ids(self.options)
        pids = {pid for name in groups for pid in read_cgroup_pids(self.options.cgroups, self.group(name))}
        return jail_ids(self.options), groups, pids | self.vmms()

    def roots(self) -> list[Path]:
        """The chroots that exist now."""
        return [Jail(self.options, vm_id, 0).root for vm_id in jail_ids(self.options)]

    def group(self, vm_id: str) -> str:
        return f"{self.options.parent_cgroup}/{vm_id}"

    @staticmethod
    def vmms() -> set[int]:
        """Processes that run as one of the users that only machines of these tests have."""
        found = set()
        for name in os.listdir("/proc"):
            if name.isdigit():
                with contextlib.suppress(OSError):
                    owner = Path(f"/proc/{name}").stat().st_uid
                    if UID <= owner < UID + UIDS and Path(f"/proc/{name}/exe").readlink():  # the dead have none
                        found.add(int(name))
        return found


NOTHING: tuple[set[str], set[str], set[int]] = (set(), set(), set())


@pytest.fixture
def bench(ready_state: StatePaths) -> Iterator[Bench]:
    if os.geteuid() != 0:
        pytest.skip("root, for the jailer")
    if problem := device_problem():
        pytest.skip(f"a /dev/kvm that takes VMs: {problem}")
    root = Path(tempfile.mkdtemp(prefix=".mayfly-test-", dir=ready_state.root.parent))
    try:
        (root / "store").symlink_to(ready_state.store)
        paths = StatePaths(root).make()
        artefacts = node_artefacts(Store(paths), verify=False)
        bench = Bench(root, jailer_options(paths, artefacts), artefacts.boot_source())
        yield bench
        left = bench.left()
        anyio.run(remove_leftovers, bench.options)
        for directory in bench.options.cgroups.directories(bench.options.parent_cgroup):
            if directory.exists():
                directory.rmdir()
        assert left == NOTHING
    finally:
        shutil.rmtree(root, ignore_errors=True)


@asynccontextmanager
async def one_machine(bench: Bench, vm_id: str = "", **changes: Path) -> AsyncIterator[FirecrackerMachine]:
    """A machine that nothing has been done with yet; destroyed after the block, which must leave nothing."""
    async with anyio.create_task_group() as group:
        spec = MachineSpec(id=vm_id or f"kvm-{secrets.token_hex(4)}", mem_mib=MEM_MIB)
        jail = Jail(replace(bench.options, **changes), spec.id, UID)
        machine = FirecrackerMachine(jail, spec, group, lambda: None)
        try:
            yield machine
        finally:
            await machine.destroy()
            group.cancel_scope.cancel()


def status_of(pid: int, task: int | None = None) -> dict[str, list[str]]:
    text = Path(f"/proc/{pid}/task/{task or pid}/status").read_text()
    return {name: value.split() for name, _, value in (line.partition(":") for line in text.splitlines())}


def test_a_vmm_has_no_rights_and_sees_only_its_jail(bench: Bench) -> None:
    async def look() -> None:
        async with one_machine(bench) as machine:
            await machine.boot(bench.source)
            pid = machine.vmm.pid
            assert pid is not None
            tasks = [int(task) for task in os.listdir(f"/proc/{pid}/task")]
            assert len(tasks) >= 3, "API, VMM and a virtual processor"
            for task in tasks:
                status = status_of(pid, task)
                assert status["Uid"] == status["Gid"] == [str(UID)] * 4
                assert status["Groups"] == []
                assert [int(status[name][0], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")] == [0, 0, 0, 0]
                assert status["Seccomp"] == ["2"]
                assert status["NoNewPrivs"] == ["1"]
            assert status_of(pid)["NSpid"][-1] == "1", "first in a process namespace of its own"
            for kind in ("pid", "mnt"):
                assert str(Path(f"/proc/{pid}/ns/{kind}").readlink()) != str(Path(f"/proc/self/ns/{kind}").readlink())
            assert str(Path(f"/proc/{pid}/root").readlink()) == "/", "the root of its own mount namespace"
            expected = {
                "vmlinux",
                "rootfs.img",
                "agent.img",
                "firecracker",
                "firecracker.pid",
                "api.sock",
                "v.sock",
                "dev",
            }
            assert set(os.listdir(f"/proc/{pid}/root")) - {"run"} == expected
            devices = {path.name for path in Path(f"/proc/{pid}/root/dev").rglob("*") if not path.is_dir()}
            assert devices <= {"kvm", "tun", "urandom", "userfaultfd"}
            opened = [str(Path(f"/proc/{pid}/fd/{fd}").readlink()) for fd in os.listdir(f"/proc/{pid}/fd")]
            assert not [name for name in opened if "tun" in name or str(bench.root) in name]

    anyio.run(look)


def test_a_vmm_is_in_its_own_control_group_with_limits_and_has_no_network_device(bench: Bench) -> None:
    if bench.options.cgroups.version == 0:
        pytest.skip("control groups with memory and pids")

    async def look() -> None:
        async with one_machine(bench) as machine:
            await machine.boot(bench.source)
            pid = machine.vmm.pid
            assert read_cgroup_pids(bench.options.cgroups, bench.group(machine.id)) == {pid}
            machine.weigh(50)
            values, shares = {}, ("cpu.weight", "cpu.shares")
            for directory in bench.options.cgroups.directories(bench.group(machine.id)):
                for name in ("memory.limit_in_bytes", "memory.max", "pids.max", "cpu.max", "cpu.cfs_quota_us", *shares):
                    if (directory / name).exists():
                        values[name] = int((directory / name).read_text().split()[0])
            assert values.pop("pids.max") <= 64
            quota = values.pop("cpu.max", None) or values.pop("cpu.cfs_quota_us", None)
            weight = values.pop("cpu.weight", 0) or values.pop("cpu.shares", 0) * 100 // 1024
            assert weight == (50 if bench.options.cgroups.has_cpu else 0)
            assert quota == (125_000 if bench.options.cgroups.has_cpu else None)
            assert list(values.values()) == [(MEM_MIB + bench.options.vmm_overhead_mib) << 20]
            async with await machine.vmm.api() as api:
                config = await api.get("/vm/config")
            assert config["network-interfaces"] == []
            assert all(drive["is_read_only"] for drive in config["drives"])

    anyio.run(look)


@pytest.mark.parametrize("state", ["jail", "started", "booted", "paused"])
@pytest.mark.parametrize("killed", [False, True], ids=["alive", "killed"])
def test_destroying_leaves_nothing_in_whatever_state_the_vmm_is(bench: Bench, state: str, killed: bool) -> None:
    async def go_to(machine: FirecrackerMachine) -> None:
        if state == "jail":
            machine._undo.add("jail", machine._remove_jail)
            machine._jail.make()
            machine._jail.link(bench.source.drives())
        elif state == "started":
            await machine._start_vmm(bench.source.drives())
        else:
            await machine.boot(bench.source)
        if state == "paused":
            async with await machine.vmm.api() as api:
                await api.patch("/vm", {"state": "Paused"})

    async def work() -> None:
        async with one_machine(bench) as machine:
            await go_to(machine)
            assert jail_ids(bench.options) == {machine.id}
            if killed and machine.vmm.pid is not None:
                os.kill(machine.vmm.pid, 9)
            await machine.destroy()
            assert bench.left() == NOTHING

    anyio.run(work)


@pytest.mark.parametrize("fault", ["jailer", "firecracker", "id", "snapshot", "rootfs", "initrd"])
def test_a_launch_that_fails_is_a_typed_error_and_leaves_nothing(bench: Bench, tmp_path: Path, fault: str) -> None:
    expected = {"jailer": HostError, "firecracker": VmmError, "id": VmmError, "snapshot": VmmError}
    changes = {fault: tmp_path / fault} if fault in {"jailer", "firecracker"} else {}
    missing = {fault: tmp_path / "none"} if fault in {"rootfs", "initrd"} else {}
    source = replace(bench.source, **missing)
    spec = MachineSpec(id="not_an_id" if fault == "id" else f"kvm-{secrets.token_hex(4)}", mem_mib=MEM_MIB)

    garbage = SnapshotFiles(bench.root / "vmstate", bench.root / "memory")
    for file in (garbage.vmstate, garbage.memory):
        file.write_bytes(os.urandom(8192))

    async def work() -> None:
        async with anyio.create_task_group() as group:
            launcher = FirecrackerLauncher(
                replace(bench.options, **changes),
                source,
                HostInfo(kind="kvm", firecracker=""),
                group,
                uids=UidRange(UID, 1),
                agent_deadline_s=0.5,
            )
            for _ in range(2):  # the second finds the only user id free again
                with pytest.raises(expected.get(fault, SetupError)):
                    await (launcher.load(spec, garbage) if fault == "snapshot" else launcher.launch(spec))
                assert bench.left() == NOTHING
            group.cancel_scope.cancel()

    anyio.run(work)


def test_a_name_in_use_is_refused_and_its_owner_is_not_touched(bench: Bench) -> None:
    async def work() -> None:
        async with one_machine(bench, "kvm-first") as first:
            await first._start_vmm(bench.source.drives())
            second = FirecrackerMachine(first._jail, first.spec, first.vmm._group, lambda: None)
            with pytest.raises(MayflyError):
                await second._start_vmm(bench.source.drives())
            assert not first.exited.is_set()
            assert first.vmm.pid in bench.left()[2]

    anyio.run(work)


@asynccontextmanager
async def launcher_with_standby(bench: Bench, count: int) -> AsyncIterator[FirecrackerLauncher]:
    """A launcher whose VMMs stand by already; drained after the block."""
    async with anyio.create_task_group() as group:
        info = HostInfo(kind="kvm", firecracker="")
        launcher = FirecrackerLauncher(
            bench.options, bench.source, info, group, uids=UidRange(UID, UIDS), standby=count
        )
        launcher.fill()
        try:
            await standing_by(bench, count)
            yield launcher
        finally:
            with anyio.CancelScope(shield=True):
                await launcher.drain()
            group.cancel_scope.cancel()


async def standing_by(bench: Bench, count: int) -> None:
    with anyio.fail_after(20):
        while sum((Path(root) / "api.sock").exists() for root in bench.roots()) < count:  # noqa: ASYNC110 - the file system has no event here
            await anyio.sleep(0.01)
        await anyio.sleep(0.1)  # the connection is made a moment after


async def snapshot_of_a_half_booted_machine(bench: Bench) -> SnapshotFiles:
    directory = bench.root / "build" / "snapshot"
    directory.mkdir(parents=True)
    async with one_machine(bench) as machine:
        await machine.boot(bench.source)
        await anyio.sleep(0.2)
        return await machine.snapshot(directory)


def test_a_restore_uses_a_vmm_that_stood_by_with_the_limits_of_its_size_and_leaves_nothing(bench: Bench) -> None:
    async def work() -> None:
        snapshot = await snapshot_of_a_half_booted_machine(bench)
        async with launcher_with_standby(bench, 1) as launcher:
            [waiting] = launcher.jails_of(frozenset())
            machine = await launcher.load(MachineSpec(id="wanted", mem_mib=MEM_MIB), snapshot)
            assert (machine.id, machine.jail_id) == ("wanted", waiting)
            assert waiting in launcher.jails_of(frozenset({"wanted"}))
            pid = machine.vmm.pid
            assert pid is not None
            assert UID <= int(status_of(pid)["Uid"][0]) < UID + UIDS
            group = bench.group(waiting)
            assert read_cgroup_pids(bench.options.cgroups, group) == {pid}
            if bench.options.cgroups.version:
                expected = (MEM_MIB + bench.options.vmm_overhead_mib) * 1024 * 1024
                limits = [
                    int(file.read_text())
                    for directory in bench.options.cgroups.directories(group)
                    for name in ("memory.max", "memory.limit_in_bytes")
                    if (file := directory / name).exists()
                ]
                assert limits == [expected]
            await standing_by(bench, 2)
            await machine.destroy()
            assert launcher.jails_of(frozenset()) == bench.left()[0], "only its successor stands by"

    anyio.run(work)


def test_a_vmm_that_died_while_it_stood_by_is_not_used(bench: Bench) -> None:
    async def work() -> None:
        snapshot = await snapshot_of_a_half_booted_machine(bench)
        async with launcher_with_standby(bench, 1) as launcher:
            for pid in bench.vmms():
                os.kill(pid, 9)
            await anyio.sleep(0.2)
            machine = await launcher.load(MachineSpec(id="wanted", mem_mib=MEM_MIB), snapshot)
            assert machine.jail_id == "wanted"
            await machine.destroy()

    anyio.run(work)


def test_a_damaged_snapshot_costs_the_vmm_that_stood_by_and_leaves_nothing(bench: Bench) -> None:
    async def work() -> None:
        snapshot = await snapshot_of_a_half_booted_machine(bench)
        os.truncate(snapshot.vmstate, 1000)
        async with launcher_with_standby(bench, 1) as launcher:
            [waiting] = launcher.jails_of(frozenset())
            with pytest.raises(VmmError):
                await launcher.load(MachineSpec(id="wanted", mem_mib=MEM_MIB), snapshot)
            assert waiting not in bench.left()[0]

    anyio.run(work)


def test_what_a_node_killed_in_mid_launch_left_is_removed_and_counted(bench: Bench) -> None:
    command = [sys.executable, "-c", DOOMED_NODE, str(bench.root), str(UID + 100)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as node:
        try:
            assert node.stdout is not None
            assert node.stdout.readline() == b"launching the third\n"
        finally:
            node.kill()
    jails, groups, processes = bench.left()
    assert {"doomed-0", "doomed-1"} <= jails
    assert len(processes) >= 2
    found = anyio.run(remove_leftovers, bench.options)
    assert set(found.machines) == jails | groups
    assert found.processes >= 2
    assert bench.left() == NOTHING
    assert not [pid for pid in processes if Path(f"/proc/{pid}/exe").exists()]
    assert anyio.run(remove_leftovers, bench.options).machines == ()
