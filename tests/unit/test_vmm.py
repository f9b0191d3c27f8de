from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from mayfly.errors import DiskFullError, HostError, SetupError
from mayfly.host.cgroups import CgroupLayout, detect_cgroups, remove_cgroups
from mayfly.host.locks import try_lock
from mayfly.vmm.census import take_census
from mayfly.vmm.jail import Jail, JailerOptions
from mayfly.vmm.launcher import MachineSpec
from mayfly.vmm.leftovers import remove_leftovers
from mayfly.vmm.machine import BootSource, FirecrackerMachine
from mayfly.vmm.undo import UndoList
from mayfly.vmm.versions import FirecrackerVersion, check_version, parse_version

# -- versions ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["Firecracker v1.12.1\n\nexit code 0", "1.12.1", "v1.12.1", "jailer v1.12.1"])
def test_a_version_is_read_from_what_the_binary_prints(text: str) -> None:
    assert parse_version(text) == FirecrackerVersion(1, 12, 1)


@pytest.mark.parametrize("text", ["", "Firecracker", "1.2", "v1.x.1", "\0\0", "9" * 500])
def test_what_is_no_version_is_a_setup_error(text: str) -> None:
    with pytest.raises(SetupError):
        parse_version(text)


@pytest.mark.parametrize("text", ["1.11.9", "0.25.0", "1.16.0"])
def test_versions_that_do_not_work_are_refused(text: str) -> None:
    with pytest.raises(SetupError):
        check_version(parse_version(text))


def test_versions_past_their_end_or_with_a_known_hole_are_warned_about() -> None:
    assert len(check_version(parse_version("1.12.1"))) == 2
    assert any("CVE-2026-1386" in line for line in check_version(parse_version("1.14.0")))
    assert not any("CVE" in line for line in check_version(parse_version("1.14.1")))
    assert check_version(parse_version("1.17.0")) == ()


# -- control groups ----------------------------------------------------------------------------------------

_V1 = "cgroup {0}/memory cgroup rw,memory 0 0\ncgroup {0}/pids cgroup rw,nosuid,pids 0 0\n"


@pytest.mark.parametrize(
    ("mounts", "controllers", "version"),
    [
        ("cgroup2 {0}/u cgroup2 rw 0 0\n", "cpu memory pids", 2),
        (_V1, "", 1),
        (_V1 + "cgroup2 {0}/u cgroup2 rw 0 0\n", "", 1),
        ("cgroup2 {0}/u cgroup2 rw 0 0\n", "cpu", 0),
        ("cgroup {0}/memory cgroup rw,memory 0 0\n", "", 0),
        ("", "", 0),
    ],
    ids=["unified", "legacy", "hybrid", "unified without memory", "legacy without pids", "none"],
)
def test_the_layout_is_where_memory_and_pids_are(tmp_path: Path, mounts: str, controllers: str, version: int) -> None:
    (tmp_path / "u").mkdir()
    (tmp_path / "u" / "cgroup.controllers").write_text(controllers)
    table = tmp_path / "mounts"
    table.write_text(mounts.format(tmp_path))
    assert detect_cgroups(table).version == version


def test_the_jailer_is_told_the_limits_in_the_words_of_the_version() -> None:
    v1 = CgroupLayout(1, {}).jailer_arguments("p", memory_bytes=5, pids=6)
    v2 = CgroupLayout(2, {}).jailer_arguments("p", memory_bytes=5, pids=6)
    assert "memory.limit_in_bytes=5" in v1
    assert "memory.max=5" in v2
    assert v1[:2] == ["--cgroup-version", "1"]
    assert "pids.max=6" in v2
    assert CgroupLayout(0, {}).jailer_arguments("p", memory_bytes=5, pids=6) == []


def test_processor_time_is_shared_out_where_the_controller_is_there() -> None:
    v1 = CgroupLayout(1, {}, has_cpu=True).jailer_arguments("p", memory_bytes=5, pids=6, cpus=2.25)
    v2 = CgroupLayout(2, {}, has_cpu=True).jailer_arguments("p", memory_bytes=5, pids=6, cpus=2.25)
    assert "cpu.cfs_quota_us=225000" in v1
    assert "cpu.cfs_period_us=100000" in v1
    assert "cpu.max=225000 100000" in v2
    without = CgroupLayout(2, {}).jailer_arguments("p", memory_bytes=5, pids=6, cpus=2.25)
    assert not [word for word in without if "cpu." in word]


@pytest.mark.parametrize(
    ("version", "mount", "file", "half"), [(1, "cpu", "cpu.shares", "512"), (2, "unified", "cpu.weight", "50")]
)
def test_a_group_gets_its_share_of_busy_processors(
    tmp_path: Path, version: int, mount: str, file: str, half: str
) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / file).touch()
    CgroupLayout(version, {mount: tmp_path}, has_cpu=True).weigh("p", 50)
    assert (tmp_path / "p" / file).read_text() == half
    with pytest.raises(HostError):
        CgroupLayout(version, {mount: tmp_path}, has_cpu=True).weigh("gone", 50)
    CgroupLayout(version, {mount: tmp_path}).weigh("gone", 50)


@pytest.mark.anyio
async def test_removing_a_group_that_is_not_there_is_no_error(tmp_path: Path) -> None:
    await remove_cgroups(CgroupLayout(2, {"unified": tmp_path}), "p/x")


# -- jail --------------------------------------------------------------------------------------------------


def _options(tmp_path: Path) -> JailerOptions:
    return JailerOptions(
        jailer=Path("/x/jailer"),
        firecracker=Path("/x/firecracker"),
        jails=tmp_path / "jails",
        cgroups=CgroupLayout(0, {}),
        parent_cgroup="mayfly-test",
    )


def test_a_jail_holds_hard_links_of_what_it_is_given(tmp_path: Path) -> None:
    (tmp_path / "kernel").write_bytes(b"k")
    jail = Jail(_options(tmp_path), "vm-1", 20000)
    jail.make()
    jail.link({"vmlinux": tmp_path / "kernel"})
    assert (jail.root / "vmlinux").stat().st_ino == (tmp_path / "kernel").stat().st_ino
    jail.remove()
    assert not jail.directory.exists()
    assert (tmp_path / "kernel").read_bytes() == b"k"
    jail.remove()  # again is no error


def test_a_jail_that_exists_is_never_used_again(tmp_path: Path) -> None:
    jail = Jail(_options(tmp_path), "vm-1", 20000)
    jail.make()
    with pytest.raises(HostError):
        jail.make()


def test_a_missing_artefact_is_a_setup_error_with_the_remedy(tmp_path: Path) -> None:
    jail = Jail(_options(tmp_path), "vm-1", 20000)
    jail.make()
    with pytest.raises(SetupError, match="mayfly setup"):
        jail.link({"vmlinux": tmp_path / "nothing"})


def test_no_space_is_said_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.link", full)
    jail = Jail(_options(tmp_path), "vm-1", 20000)
    jail.make()
    with pytest.raises(DiskFullError):
        jail.link({"vmlinux": tmp_path})


def test_the_jailer_gets_its_own_ids_a_pid_namespace_and_no_network(tmp_path: Path) -> None:
    command = Jail(_options(tmp_path), "vm-1", 20001).command(mem_mib=128)
    assert command[command.index("--uid") + 1] == "20001"
    assert command[command.index("--gid") + 1] == "20001"
    assert "--new-pid-ns" in command
    assert "--no-seccomp" not in command
    assert "--netns" not in command


@pytest.mark.anyio
async def test_leftover_jails_are_found_and_removed(tmp_path: Path) -> None:
    options = _options(tmp_path)
    for name in ("ex-1", "ex-2"):
        Jail(options, name, 0).make()
    (options.jails / "firecracker" / "not a jail!").mkdir()
    found = await remove_leftovers(options)
    assert found.machines == ("ex-1", "ex-2")
    assert [path.name for path in (options.jails / "firecracker").iterdir()] == ["not a jail!"]


def test_a_jailer_that_is_still_at_work_is_ended_before_it_makes_another_machine(tmp_path: Path) -> None:
    options = replace(_options(tmp_path), jailer=tmp_path / "link" / "jailer")
    (tmp_path / "store").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "store")  # a store may lie elsewhere
    shutil.copy("/bin/bash", options.jailer)  # any program that stays, under the jailer's path
    Jail(options, "ex-1", 0).make()
    waits = [str(options.jailer), "-c", "read word", "--chroot-base-dir"]
    with (
        subprocess.Popen([*waits, str(options.jails)], stdin=subprocess.PIPE) as ours,
        subprocess.Popen([*waits, str(tmp_path / "others")], stdin=subprocess.PIPE) as anothers,
    ):
        found = anyio.run(remove_leftovers, options)
        assert (found.machines, found.processes) == (("ex-1",), 1)
        assert ours.wait(10) == -signal.SIGKILL
        assert anothers.poll() is None


def test_vmms_of_other_nodes_of_this_machine_are_not_counted(tmp_path: Path) -> None:
    binary = tmp_path / "firecracker"
    shutil.copy(shutil.which("sleep") or "", binary)
    options = _options(tmp_path)
    elsewhere = replace(options, cgroups=CgroupLayout(2, {"unified": tmp_path}))
    before = take_census(elsewhere).vmm_processes
    with subprocess.Popen([binary, "60"]) as process:
        try:
            assert take_census(options).vmm_processes >= 1  # without control groups they cannot be told apart
            assert take_census(elsewhere).vmm_processes == before == 0
        finally:
            process.kill()


def _described(options: JailerOptions, lock: Path) -> str:
    """What a janitor is told, on a machine without control groups."""
    words: dict[str, object] = {name: str(getattr(options, name)) for name in ("jailer", "firecracker", "jails")}
    groups = {"cgroup_version": 0, "cgroup_mounts": {}, "parent_cgroup": options.parent_cgroup}
    return json.dumps(words | groups | {"lock": str(lock), "files": []})


def test_the_janitor_removes_machines_whose_state_directory_has_gone(tmp_path: Path) -> None:
    options = _options(tmp_path)
    Jail(options, "ex-1", 0).make()
    command = [sys.executable, "-m", "mayfly.vmm.janitor", _described(options, tmp_path / "gone" / "node.lock")]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert not (options.jails / "firecracker").exists()


_TELLING_JANITOR = """
import sys
from mayfly.host import locks
from mayfly.vmm import janitor
real = locks.try_lock
def telling(path):
    found = real(path)
    print("tried", flush=True)
    return found
locks.try_lock = telling
sys.exit(janitor.main())
"""


def test_the_janitor_waits_for_a_lock_that_its_dead_node_gives_back_late(tmp_path: Path) -> None:
    options = _options(tmp_path)
    Jail(options, "ex-1", 0).make()
    lock = try_lock(tmp_path / "node.lock")
    assert lock is not None
    command = [sys.executable, "-c", _TELLING_JANITOR, _described(options, tmp_path / "node.lock")]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"tried\n"
        os.close(lock)
        assert process.wait(60) == 0
    assert not (options.jails / "firecracker").exists()


# -- undo --------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_undos_run_in_reverse_and_one_failure_stops_no_other() -> None:
    done: list[str] = []
    undo = UndoList()

    def step(name: str, *, fails: bool = False) -> None:
        async def run() -> None:
            done.append(name)
            if fails and done.count(name) == 1:
                raise HostError("busy")

        undo.add(name, run)

    step("first")
    step("second", fails=True)
    step("third")
    failure = await undo.unwind()
    assert done == ["third", "second", "first"]
    assert isinstance(failure, HostError)
    assert await undo.unwind() is None  # only the failed one is tried again
    assert done == ["third", "second", "first", "second"]


@pytest.mark.anyio
async def test_undoing_is_not_stopped_by_cancellation() -> None:
    done: list[str] = []
    undo = UndoList()

    async def slow() -> None:
        await anyio.sleep(0.01)
        done.append("slow")

    undo.add("slow", slow)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await undo.unwind()
    assert done == ["slow"]


class _NoTasks:
    def start_soon(self, *_: object) -> None:
        raise AssertionError("nothing is to be started")


@pytest.mark.anyio
async def test_a_name_used_twice_does_not_cost_the_first_its_jail(tmp_path: Path) -> None:
    options = _options(tmp_path)
    Jail(options, "vm-1", 20000).make()
    released: list[str] = []
    second = FirecrackerMachine(
        Jail(options, "vm-1", 20001),
        MachineSpec(id="vm-1", mem_mib=128),
        _NoTasks(),  # type: ignore[arg-type]
        lambda: released.append("uid"),
    )
    with pytest.raises(HostError):
        await second.boot(BootSource(tmp_path, tmp_path, tmp_path))
    await second.destroy()
    assert Jail(options, "vm-1", 20000).directory.exists()
    assert released == ["uid"]
