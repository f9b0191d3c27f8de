"""The commands about sandboxes: `ps`, `shell`, `exec`, `cp`, `logs`, `kill`, before a node of fake machines."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from typing import TYPE_CHECKING, Any

import pytest

from mayfly import Sandbox
from mayfly.host.eventloop import open_portal
from mayfly.testing.service import open_service

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(120)

MAYFLY = [sys.executable, "-m", "mayfly"]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("n")
    with (
        open_portal() as portal,
        portal.wrap_async_context_manager(open_service(directory)) as service,
    ):
        yield service.address


@pytest.fixture(autouse=True)
def _node(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAYFLY_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("MAYFLY_NODE", address)
    monkeypatch.setenv("NO_COLOR", "1")


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(metadata={"task": "a\x1b[2Jb"}) as sandbox:
        yield sandbox


def mayfly(*args: str, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    given: Any = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
    return subprocess.run([*MAYFLY, *args], capture_output=True, timeout=60, check=False, **given)


def test_ps_lists_sandboxes_and_what_they_are_for(sandbox: Sandbox) -> None:
    shown = mayfly("ps").stdout.decode()
    line = next(line for line in shown.splitlines() if line.startswith(sandbox.id))
    assert "running" in line
    assert "task=a\\x1b[2Jb" in line
    listed = json.loads(mayfly("ps", "--json").stdout)["sandboxes"]
    assert sandbox.id in [info["id"] for info in listed]


def test_exec_passes_streams_and_the_exit_code_through(sandbox: Sandbox) -> None:
    done = mayfly(
        "exec", "--env", "A=b", sandbox.id, "sh", "-c", "cat; echo $A >&2; exit 7", stdin=b"caf\xc3\xa9\xff\x00"
    )
    assert (done.returncode, done.stdout, done.stderr) == (7, b"caf\xc3\xa9\xff\x00", b"b\n")


def test_exec_runs_code_whose_state_stays(sandbox: Sandbox) -> None:
    assert mayfly("exec", sandbox.id, "--", "echo", "--", "x").stdout == b"-- x\n"
    assert mayfly("exec", "-c", "x = 6", sandbox.id).returncode == 0
    done = mayfly("exec", "-c", "print('hi'); x * 7", sandbox.id)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"hi\n42\n", b"")
    done = mayfly("exec", "-c", "1 / 0", sandbox.id)
    assert done.returncode == 1
    assert b"ZeroDivisionError" in done.stderr


def test_what_the_scan_refuses_is_126(sandbox: Sandbox) -> None:
    done = mayfly("exec", sandbox.id, "echo", "DENY")
    assert done.returncode == 126
    assert done.stderr.startswith(b"mayfly: the scan refused")
    done = mayfly("exec", "-c", "'DENY'", sandbox.id)
    assert (done.returncode, b"the scan refused" in done.stderr) == (126, True)


def test_ctrl_c_ends_the_command_and_leaves_the_sandbox(sandbox: Sandbox) -> None:
    with subprocess.Popen(
        [*MAYFLY, "exec", sandbox.id, "sh", "-c", "echo up; sleep 60"], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    until = time.monotonic() + 20
    while any(command.running for command in sandbox.commands.list()):
        assert time.monotonic() < until
        time.sleep(0.05)
    assert sandbox.info().state == "running"


def test_files_are_copied_both_ways(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "d" / "sub").mkdir(parents=True)
    (tmp_path / "d" / "a.txt").write_bytes(b"a\0")
    (tmp_path / "d" / "sub" / "b.txt").write_text("b")
    assert mayfly("cp", "-v", str(tmp_path / "d"), f"{sandbox.id}:in").stdout.splitlines() == [
        b"in/a.txt", b"in/sub/b.txt",
    ]  # fmt: skip
    assert mayfly("cp", f"{sandbox.id}:in/a.txt", str(tmp_path / "again")).returncode == 0
    assert (tmp_path / "again").read_bytes() == b"a\0"
    assert mayfly("cp", f"{sandbox.id}:in/*.txt", f"{sandbox.id}:in/sub", str(tmp_path / "all")).returncode == 0
    assert sorted(path.name for path in (tmp_path / "all").rglob("*")) == ["a.txt", "b.txt", "sub"]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("cp", "a", "b"), "one side must be here"),
        (("cp", "sb-1:a", "sb-2:b"), "one side must be here"),
        (("exec", "sb-none", "ls"), "there is no sandbox"),
        (("exec", "sb-none"), "say what to run"),
        (("logs", "sb-none"), "there is no sandbox"),
        (("kill",), "say which"),
        (("kill", "--all", "sb-1"), "say which"),
        (("shell",), "needs a terminal"),
        (("shell", "sb-1", "--detach"), "for a new sandbox"),
        (("shell", "sb-1", "--template", "abcd"), "for a new sandbox"),
        (("shell", "--detach", "--template", "abcd"), "there is no template abcd"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_wrong_use_is_2_and_one_sentence(args: tuple[str, ...], said: str) -> None:
    done = mayfly(*args)
    assert (done.returncode, said in done.stderr.decode()) == (2, True)


def test_logs_say_what_was_done_without_steering_the_terminal(sandbox: Sandbox) -> None:
    sandbox.run_code("print('printed \x1b[2J')")
    shown = mayfly("logs", sandbox.id).stdout.decode()
    assert "printed \\x1b[2J" in shown
    entries = [json.loads(line) for line in mayfly("logs", "--json", sandbox.id).stdout.splitlines()]
    assert any(entry["stream"] == "stdout" and "printed" in entry["text"] for entry in entries)


def test_a_detached_sandbox_lives_until_it_is_killed() -> None:
    made = mayfly("shell", "--detach", "--timeout", "600", "--mem", "512").stdout.decode().strip()
    assert re.fullmatch(r"sb-[a-z0-9]+", made)
    assert Sandbox.connect(made).info().limits.mem_mib == 512
    assert mayfly("kill", made).stdout.decode() == f"{made}\n"
    assert mayfly("kill", made).returncode == 1
    assert made not in mayfly("ps").stdout.decode()
    assert made in mayfly("ps", "--all").stdout.decode()


def test_a_shell_is_a_terminal_whose_exit_code_passes_through() -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*MAYFLY, "shell"], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    ) as process:
        os.close(theirs)
        os.write(ours, b"echo $((6 * 7)); tty; exit 3\n")
        shown = _until_end(ours)
        assert process.wait(60) == 3
    os.close(ours)
    assert b"42" in shown
    assert b"/dev/pts/" in shown


@pytest.mark.parametrize("how", ["SIGHUP", "SIGTERM", "closed"])
def test_a_shell_whose_terminal_goes_takes_its_sandbox_with_it(how: str) -> None:
    """As when a window is closed: the kernel sends SIGHUP to those that the terminal controls."""
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    with subprocess.Popen(
        ["setsid", "--ctty", *MAYFLY, "shell"], stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.write(ours, b"echo re''ady\n")
        shown = b""
        while b"ready" not in shown:
            shown += os.read(ours, 4096)
        assert process.poll() is None
        assert "running" in mayfly("ps").stdout.decode()
        if how == "closed":
            os.close(theirs)
            os.close(ours)
        else:
            process.send_signal(getattr(signal, how))
        assert process.wait(60) == -(signal.SIGHUP if how == "closed" else getattr(signal, how))
    assert not [info for info in Sandbox.list() if info.state == "running"]
    if how != "closed":
        assert termios.tcgetattr(theirs) == before
        os.close(theirs)
        os.close(ours)


def test_exec_that_is_told_to_end_ends_its_command(sandbox: Sandbox) -> None:
    with subprocess.Popen(
        [*MAYFLY, "exec", sandbox.id, "--", "sh", "-c", "echo up; sleep 600"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == -signal.SIGTERM
    assert [command for command in sandbox.commands.list() if command.running] == []


def _until_end(fd: int) -> bytes:
    shown = b""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if select.select([fd], [], [], 1)[0]:
            try:
                data = os.read(fd, 4096)
            except OSError:  # the other side is closed
                break
            if not data:
                break
            shown += data
    return shown
