from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import anyio
import pytest

from mayfly.errors import ConfigError, EmulatedHostError, HostError, SetupError
from mayfly.host import emulated
from mayfly.host.code import code_hash, package_files
from mayfly.host.drives import ensure_state_disk, write_code_tar
from mayfly.host.locks import holder, is_locked, lock_file, try_lock
from mayfly.host.paths import StatePaths, spread_directories, state_paths
from mayfly.host.process import spawn
from mayfly.host.qemu import QemuMachine
from mayfly.host.sockets import connect_unix, listens, short_path, wait_for_file

# -- paths -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({"MAYFLY_HOME": "/m", "XDG_DATA_HOME": "/x", "HOME": "/h"}, "/m"),
        ({"XDG_DATA_HOME": "/x", "HOME": "/h"}, "/x/mayfly"),
        ({"XDG_DATA_HOME": "relative", "HOME": "/h"}, "/h/.local/share/mayfly"),
        ({"HOME": "/h"}, "/h/.local/share/mayfly"),
    ],
)
def test_the_state_directory_is_chosen_by_one_rule(env: dict[str, str], expected: str) -> None:
    assert state_paths(env).root == Path(expected)


def test_a_relative_state_directory_is_refused_by_name() -> None:
    with pytest.raises(ConfigError) as caught:
        state_paths({"MAYFLY_HOME": "here"})
    assert caught.value.field == "MAYFLY_HOME"


def test_state_directories_are_the_owners_alone(tmp_path: Path) -> None:
    paths = StatePaths(tmp_path / "state").make()
    assert {path.stat().st_mode & 0o777 for path in (paths.root, paths.run, paths.jails, paths.store)} == {0o700}


# -- locks -------------------------------------------------------------------------------------------------


def test_a_lock_is_held_by_one_and_names_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not is_locked(path)
    descriptor = try_lock(path)
    assert descriptor is not None
    assert try_lock(path) is None
    assert is_locked(path)
    assert holder(path) == os.getpid()
    os.close(descriptor)
    assert not is_locked(path)
    assert holder(path) is None


def test_a_lock_ends_with_its_holder_even_when_that_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    code = (
        "import sys; from pathlib import Path; from mayfly.host.locks import try_lock;"
        "try_lock(Path(sys.argv[1])); print(1, flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, stdin=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"1\n"
        assert holder(path) == process.pid
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not is_locked(path)


def test_waiting_for_a_lock_ends_at_the_deadline(tmp_path: Path) -> None:
    with (
        lock_file(tmp_path / "lock", timeout_s=1),
        pytest.raises(TimeoutError),
        lock_file(tmp_path / "lock", timeout_s=0.1),
    ):
        pass


# -- sockets -----------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_sockets_with_paths_longer_than_an_address_work(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 50)
    deep.mkdir(parents=True)
    path = deep / "v.sock"
    with short_path(path) as name:
        listener = await anyio.create_unix_listener(name)
    async with listener:
        assert listens(path)
        stream = await connect_unix(path)
        await stream.aclose()
    assert not listens(path)


@pytest.mark.anyio
async def test_waiting_for_a_file_ends_when_it_appears(tmp_path: Path) -> None:
    threading.Timer(0.05, (tmp_path / "there").touch).start()
    with anyio.fail_after(5):
        await wait_for_file(tmp_path / "there")
        await wait_for_file(tmp_path / "there")  # at once when it is there already
    with pytest.raises(HostError):
        await wait_for_file(tmp_path / "no" / "such")


def test_spreading_directories_is_left_out_where_it_is_not_known(tmp_path: Path) -> None:
    spread_directories(tmp_path)
    (tmp_path / "jail").mkdir()
    spread_directories(Path("/proc"))
    spread_directories(tmp_path / "no" / "such")


# -- processes ---------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("quick", [False, True])
async def test_a_program_gets_its_streams_and_environment_and_a_session_of_its_own(quick: bool) -> None:
    reading, writing = os.pipe()
    look = "import os, sys; print(os.getsid(0) == os.getpid(), dict(os.environ), sys.argv[1:]); sys.exit(7)"
    command = [sys.executable, "-SEc", look, "a word"]
    try:
        child = spawn(command, stdout=writing, env={"ONLY": "this"}, closes_descriptors=quick)
    finally:
        os.close(writing)
    with anyio.fail_after(20):
        assert await child.wait() == 7
    printed = os.read(reading, 4096).decode()
    os.close(reading)
    assert printed.startswith("True {'ONLY': 'this'")
    assert printed.endswith("['a word']\n")


@pytest.mark.anyio
async def test_a_descriptor_that_we_were_given_is_not_passed_on() -> None:
    given, other = os.pipe()
    os.set_inheritable(other, True)
    child = spawn([sys.executable, "-SEc", f"import os; os.fstat({other})"])
    with anyio.fail_after(20):
        assert await child.wait() == 1
    os.close(given)
    os.close(other)


@pytest.mark.parametrize("quick", [False, True])
def test_a_program_that_is_not_there_is_a_host_error(quick: bool) -> None:
    with pytest.raises(HostError, match="cannot start /no/such"):
        spawn(["/no/such"], closes_descriptors=quick)


@pytest.mark.anyio
async def test_a_child_is_awaited_and_killed_by_pidfd() -> None:
    child = spawn(["/bin/sleep", "60"])
    child.kill()
    with anyio.fail_after(5):
        assert await child.wait() == -signal.SIGKILL
    child.kill()  # again is no error
    assert not Path(f"/proc/{child.pid}").exists()
    with anyio.fail_after(5):
        assert await spawn(["/bin/sh", "-c", "exit 3"]).wait() == 3


def test_a_program_that_does_not_exist_is_a_host_error() -> None:
    with pytest.raises(HostError, match="/no/such"):
        spawn(["/no/such"])


# -- code drive and state disk -----------------------------------------------------------------------------


def test_the_code_drive_holds_the_package_its_start_and_the_configuration_for_the_owner_only(tmp_path: Path) -> None:
    target = tmp_path / "code.tar"
    write_code_tar(target, {"token": "s3cret"})
    assert target.stat().st_mode & 0o777 == 0o600
    assert target.stat().st_size % 512 == 0
    with tarfile.open(target) as tar:
        names = set(tar.getnames())
        assert {"boot_host.py", "config.json", "src/mayfly/errors.py", "src/mayfly/agent/__main__.py"} <= names
        assert not any(name.endswith(".pyc") for name in names)
        config = tar.extractfile("config.json")
        assert config is not None
        assert json.load(config) == {"token": "s3cret"}


def test_the_code_hash_names_the_code() -> None:
    assert len(code_hash()) == 12
    assert ("mayfly/errors.py") in dict(package_files())


def test_the_state_disk_is_made_once_and_replaced_when_the_artefacts_change(tmp_path: Path) -> None:
    paths = StatePaths(tmp_path / "s").make()
    for key in ("a", "b"):
        (paths.store / "kernel" / key).mkdir(parents=True)
        (paths.store / "kernel" / key / "vmlinux").write_bytes(b"x")
    first = ensure_state_disk(paths, [paths.store / "kernel" / "a"])
    stamp = first.stat().st_mtime_ns
    assert ensure_state_disk(paths, [paths.store / "kernel" / "a"]) == first
    assert first.stat().st_mtime_ns == stamp
    second = ensure_state_disk(paths, [paths.store / "kernel" / "b"])
    assert second != first
    assert not first.exists()
    assert list(paths.build.iterdir()) == []


# -- emulated host -----------------------------------------------------------------------------------------


def test_qemu_gets_no_network_but_the_forwarded_port_and_a_sandbox() -> None:
    path = Path("/x,y")
    command = QemuMachine(path, path, path, path, path, port=4321, mem_mib=2048).command()
    network = command[command.index("-netdev") + 1]
    assert "restrict=on" in network
    assert network.count("hostfwd") == 1
    assert "tcp:127.0.0.1:4321-" in network
    assert "elevateprivileges=deny" in command[command.index("-sandbox") + 1]
    drives = [command[i + 1] for i, word in enumerate(command) if word == "-drive"]
    assert all("file=/x,,y," in drive for drive in drives)
    assert [("readonly=on" in drive) for drive in drives] == [True, False, True]


def test_status_of_a_state_directory_without_a_host_is_down(tmp_path: Path) -> None:
    paths = StatePaths(tmp_path / "s").make()
    assert not emulated.status(paths).up
    assert emulated.down(paths) is False


def test_stale_words_of_a_dead_supervisor_are_not_believed(tmp_path: Path) -> None:
    paths = StatePaths(tmp_path / "s").make()
    stale = {"pid": 1, "qemu_pid": 1, "port": 1, "mem_mib": 1, "code_hash": "", "version": "", "started": 0.0}
    (paths.run / "host.json").write_text(json.dumps(stale))
    assert not emulated.status(paths).up
    assert emulated.down(paths) is False


def test_up_without_artefacts_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="mayfly setup"):
        emulated.up(StatePaths(tmp_path / "s"))


def test_a_supervisor_that_cannot_start_qemu_reports_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = StatePaths(tmp_path / "s").make()
    fake = tmp_path / "bin"
    fake.mkdir()
    (fake / "qemu-system-x86_64").write_text("#!/bin/sh\necho 'mayfly: failed no luck'\nexit 1\n")
    (fake / "qemu-system-x86_64").chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake}:{os.environ['PATH']}")
    plan = emulated.Plan(
        kernel="k", initrd="i", root="r", state_disk="d", mem_mib=64, idle_exit_s=1, code_hash="c", version="0"
    )
    with pytest.raises(EmulatedHostError, match="no luck"):
        emulated._start(paths, plan, lambda _: None)
    assert {path.name for path in paths.run.iterdir()} <= {"host.log", "supervisor.log", "node.lock"}
    assert list(paths.host.iterdir()) == []
