from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from mayfly.errors import DiskFullError, DownloadError, SetupError
from mayfly.images.commands import read_tool, run_tool


def sh(script: str, *, timeout_s: float = 20.0, **rest: object) -> str:
    return run_tool(["sh", "-c", script], timeout_s=timeout_s, **rest)  # type: ignore[arg-type]


def gone(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().split(") ")[1][0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):  # it may end between the open and the read
        return True


def wait_until_gone(pid: int) -> None:
    for _ in range(200):
        if gone(pid):
            return
        time.sleep(0.02)
    pytest.fail(f"process {pid} is still there")


def test_lines_of_both_streams_arrive_as_they_come() -> None:
    seen: list[str] = []
    assert sh("echo one; echo two >&2; printf three", on_line=seen.append) == "one\ntwo\nthree"
    assert seen == ["one", "two", "three"]


def test_carriage_returns_end_lines_too() -> None:
    seen: list[str] = []
    sh(r"printf 'a\rb\r\nc'", on_line=seen.append)
    assert seen == ["a", "b", "c"]


def test_failure_shows_the_last_lines() -> None:
    with pytest.raises(SetupError, match=r"sh failed with status 3:\n(.*\n)*  the reason"):
        sh("i=0; while [ $i -lt 50 ]; do echo noise; i=$((i+1)); done; echo the reason; exit 3")


def test_full_disk_is_recognised_in_a_tools_words() -> None:
    with pytest.raises(DiskFullError, match="ran out of disk space"):
        sh("echo 'tar: write error: No space left on device' >&2; exit 2")


def test_a_mirror_that_cannot_be_reached_is_told_in_one_sentence() -> None:
    lines = (
        "Err:1 http://deb.example trixie InRelease",
        "E: Failed to fetch http://deb.example/InRelease  Could not connect (111: Connection refused)",
        "E: Failed to fetch http://security.example/InRelease  Unable to connect",
        "I: removing tempdir",
    )
    with pytest.raises(DownloadError) as caught:
        sh("".join(f"echo '{line}'; " for line in lines) + "exit 25")
    assert caught.value.message == (
        "sh could not download http://deb.example/InRelease  Could not connect (111: Connection refused)"
    )
    assert "network" in str(caught.value.hint)


def test_missing_tool_is_named() -> None:
    with pytest.raises(SetupError, match="no-such-tool is not installed"):
        run_tool(["no-such-tool"], timeout_s=1)


def test_missed_deadline_ends_the_tool_and_what_it_started(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="did not finish in its time"):
        sh(f"sleep 60 & echo $! >{tmp_path}/pid; wait", timeout_s=0.3)
    wait_until_gone(int((tmp_path / "pid").read_text()))


def test_interruption_ends_the_tool_and_what_it_started(tmp_path: Path) -> None:
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        sh(f"sleep 60 & echo $! >{tmp_path}/pid; wait")
    wait_until_gone(int((tmp_path / "pid").read_text()))


def test_tool_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    script = f"echo $$ >{tmp_path}/pid.part; mv {tmp_path}/pid.part {tmp_path}/pid; exec sleep 60"
    code = f"from mayfly.images.commands import run_tool; run_tool(['sh', '-c', {script!r}], timeout_s=60)"
    child = os.posix_spawn(sys.executable, [sys.executable, "-c", code], os.environ)
    for _ in range(500):
        if (tmp_path / "pid").exists():
            break
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    wait_until_gone(int((tmp_path / "pid").read_text()))


def test_endless_line_does_not_fill_memory() -> None:
    tail = sh("head -c 30000000 /dev/zero | tr '\\0' x")
    assert len(tail) < 10_000


def test_standard_output_can_go_to_a_file(tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as out, (tmp_path / "in").open("w+b") as given:
        given.write(b"data")
        given.seek(0)
        assert sh("cat; echo note >&2", stdout=out, stdin=given) == "note"
    assert (tmp_path / "out").read_bytes() == b"data"


def test_read_output_is_cut_and_standard_error_left_out() -> None:
    assert read_tool(["sh", "-c", "echo secret >&2; echo 1234567890"], timeout_s=10, max_bytes=4) == "1234"


def test_tools_of_the_administrator_are_found_without_them_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert "/usr/sbin" in sh("echo $PATH")
