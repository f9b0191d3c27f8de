"""What breaks around a run: damaged artefacts, a full disk, a node that is killed or runs other code."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import mayfly
from mayfly.host.emulated import down, status
from mayfly.host.paths import StatePaths
from mayfly.images.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import LiveNode

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

WAITS = "import time\nprint('waiting', flush=True)\ntime.sleep(600)\n"
FLIPPED_AT = 4096


@pytest.fixture
def emulated(ready_state: StatePaths) -> StatePaths:
    """The ready state of a machine that uses the emulated host."""
    answer = ready_state.root / "kvm.json"
    if answer.exists() and json.loads(answer.read_bytes())["usable"]:
        pytest.skip("an emulated host: this machine's KVM is used instead")
    return ready_state


@pytest.fixture
def own(emulated: StatePaths) -> Iterator[StatePaths]:
    """A state directory of the test's own whose store is one of links, so that parts can be replaced."""
    root = Path(tempfile.mkdtemp(prefix=".mayfly-test-", dir=emulated.root.parent))
    try:
        paths = StatePaths(root).make()
        link_store(emulated.store, paths.store)
        with contextlib.suppress(FileNotFoundError):
            shutil.copy(emulated.root / "kvm.json", root)
        yield paths
        down(paths)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def link_store(ready: Path, target: Path) -> None:
    target.mkdir(exist_ok=True)
    for kind in ready.iterdir():
        if kind.name != "template":
            shutil.rmtree(target / kind.name, ignore_errors=True)
            (target / kind.name).symlink_to(kind)


def replace_current(paths: StatePaths, ready: StatePaths, kind: str) -> Path:
    """A real copy of the newest entry of `kind` in place of the link; returns its directory."""
    key = Store(ready).current(kind).key
    (paths.store / kind).unlink()
    shutil.copytree(ready.store / kind / key, paths.store / kind / key)
    (paths.store / kind / "current").symlink_to(key)
    return paths.store / kind / key


def command(paths: StatePaths, *args: str, **env: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "mayfly", *args],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=300,
        check=False,
        env={**os.environ, "MAYFLY_HOME": str(paths.root), "NO_COLOR": "1", **env},
    )


@contextlib.contextmanager
def waiting_program(paths: StatePaths) -> Iterator[subprocess.Popen[bytes]]:
    """`mayfly run` of a program that has said that it waits."""
    with subprocess.Popen(
        [sys.executable, "-m", "mayfly", "run", "--timeout", "900", "-c", WAITS],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "MAYFLY_HOME": str(paths.root), "NO_COLOR": "1"},
    ) as process:
        try:
            first = process.stdout.readline()
            assert first == b"waiting\n", process.stderr.read()
            yield process
        finally:
            process.kill()


def running(paths: StatePaths) -> dict[str, Any]:
    shown: dict[str, Any] = json.loads((paths.run / "host.json").read_bytes())
    return shown


def processes_of(paths: StatePaths) -> list[str]:
    """Command lines of this machine's processes that name the state directory."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{name}/cmdline").read_bytes().decode("utf-8", "replace")
                if str(paths.root) in words:
                    found.append(words.replace("\0", " "))
    return found


@pytest.mark.parametrize(
    ("kind", "file"),
    [("kernel", "vmlinux"), ("image-python", "rootfs.squashfs"), ("firecracker", "firecracker")],
)
def test_a_flipped_byte_in_an_artefact_is_found_before_it_is_used(
    own: StatePaths, emulated: StatePaths, kind: str, file: str
) -> None:
    damaged = replace_current(own, emulated, kind) / file
    times = damaged.stat()
    damaged.chmod(0o644)
    with damaged.open("r+b") as stream:
        stream.seek(FLIPPED_AT)
        byte = stream.read(1)
        stream.seek(FLIPPED_AT)
        stream.write(bytes([byte[0] ^ 1]))
    damaged.chmod(times.st_mode)
    os.utime(damaged, ns=(times.st_atime_ns, times.st_mtime_ns))  # as a disk would do it
    done = command(own, "run", "--json", "-c", "print(1)")
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["code"]) == (125, "corrupt")
    assert file in error["message"]
    assert "mayfly setup" in error["hint"]
    assert not status(own).up
    assert processes_of(own) == []


def test_a_missing_artefact_is_said_with_what_to_do(own: StatePaths) -> None:
    (own.store / "kernel").unlink()
    done = command(own, "run", "-c", "print(1)")
    assert (done.returncode, done.stdout) == (125, b"")
    assert b"mayfly setup" in done.stderr
    assert b"Traceback" not in done.stderr


def test_a_full_disk_is_said_to_be_and_nothing_half_made_stays(own: StatePaths) -> None:
    if os.geteuid() != 0:
        pytest.skip("root, to mount a small file system")
    small = own.root / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", small], check=True)
    try:
        paths = StatePaths(small).make()
        link_store(own.store, paths.store)
        shutil.copy(own.root / "kvm.json", small)
        done = command(paths, "run", "--json", "-c", "print(1)")
        error = json.loads(done.stdout)["error"]
        assert (done.returncode, error["code"]) == (125, "disk_full")
        assert list(paths.host.iterdir()) == []
        assert processes_of(paths) == []
    finally:
        subprocess.run(["umount", small], check=True)


def test_a_node_that_is_killed_under_a_program_is_lost_and_the_next_run_works(
    own: StatePaths, live: type[LiveNode], tmp_path: Path
) -> None:
    """One story, since each start of the emulated host takes its time: stale, replaced, killed, replaced, killed."""
    other = tmp_path / "mayfly"
    shutil.copytree(Path(mayfly.__path__[0]), other, ignore=shutil.ignore_patterns("__pycache__"))
    (other / "__main__.py").write_text((other / "__main__.py").read_text() + "# changed\n")
    done = command(own, "host", "up", PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    stale = running(own)
    assert not status(own).current

    with waiting_program(own) as process:
        now = running(own)
        assert now["code_hash"] != stale["code_hash"], "a node of other code was replaced"
        assert not Path(f"/proc/{stale['qemu_pid']}").exists()
        os.kill(now["pid"], signal.SIGKILL)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (125, b"")
    assert len(err.splitlines()) <= 8, err
    assert b"Traceback" not in err

    with waiting_program(own) as process:
        assert running(own)["pid"] != now["pid"]
        assert not Path(f"/proc/{now['qemu_pid']}").exists(), "QEMU died with its supervisor"
        assert live(own).census()["jails"] == 1, "this program's, and none of the killed node's"
        supervisor = os.pidfd_open(running(own)["pid"])
        os.kill(running(own)["qemu_pid"], signal.SIGKILL)
        out, err = process.communicate(timeout=60)
        ended, _, _ = select.select([supervisor], [], [], 60)
        os.close(supervisor)
    assert process.returncode == 125
    assert b"Traceback" not in err
    assert ended, "the supervisor ends with its QEMU"
    assert [path for path in (own.node_socket, own.node_token, own.run / "host.json") if path.exists()] == []
    assert processes_of(own) == []
