"""The command line in front of a real node: streams, exit codes, refusals."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from mayfly.testing.nodes import ScriptedNode, serve_in_thread

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import LiveNode

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300), pytest.mark.usefixtures("settled")]

RAW = """
import os, sys
data = sys.stdin.buffer.read()
sys.stdout.buffer.write(bytes(range(256)) + data[::-1])
sys.stdout.flush()
print(os.environ["WHO"], sys.argv[1:], file=sys.stderr)
sys.exit(42)
"""
CONVERSATION = "print('name?', flush=True)\nname = input()\nprint('hello', name, flush=True)\ninput()\n"
WAITS = "import time\nprint('waiting', flush=True)\ntime.sleep(600)\n"
CHATTERS = "while True:\n    print('line')\n"


def test_bytes_pass_unchanged_both_ways_with_arguments_environment_and_exit_code(
    live_node: LiveNode, tmp_path: Path
) -> None:
    file = tmp_path / "raw.py"
    file.write_text(RAW)
    given = bytes(range(255, -1, -1)) * 300
    done = live_node.mayfly("run", "--env", "WHO=me", str(file), "--", "one", "--two", stdin=given)
    assert done.returncode == 42
    assert done.stdout == bytes(range(256)) + given[::-1]
    assert done.stderr == b"me ['one', '--two']\n"


def test_output_comes_while_the_program_still_waits_for_input(live_node: LiveNode) -> None:
    with live_node.start("run", "-c", CONVERSATION) as process:
        assert process.stdout.readline() == b"name?\n"
        process.stdin.write(b"mayfly\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"hello mayfly\n"
        out, err = process.communicate(b"\n", timeout=60)
    assert (process.returncode, out, err) == (0, b"", b"")


def test_json_is_one_object_with_everything(live_node: LiveNode) -> None:
    done = live_node.mayfly("run", "--json", "-", stdin=b"import sys\nprint('\\x1b[31m<b>', 6 * 7)\nsys.exit(1)\n")
    assert done.returncode == 1
    assert done.stderr == b""
    assert b"\x1b" not in done.stdout, "a terminal must not be steered by a result"
    result: dict[str, Any] = json.loads(done.stdout)
    asked = ["id", "status", "exit_code", "stdout", "stderr", "truncated", "error", "scan", "stages", "usage", "host"]
    assert set(asked) <= set(result)
    assert (result["status"], result["exit_code"], result["stdout"]) == ("failed", 1, "\x1b[31m<b> 42\n")
    assert (result["truncated"], result["error"]) == (False, None)
    assert {"kind", "firecracker"} <= set(result["host"])
    assert all(set(stage) == {"name", "ms"} for stage in result["stages"])
    assert result["scan"]["verdict"] == "allow"


def test_a_timeout_is_124_and_says_so(live_node: LiveNode) -> None:
    done = live_node.mayfly("run", "--timeout", "10", "-c", WAITS)
    assert (done.returncode, done.stdout) == (124, b"waiting\n")
    assert b"stopped after 10 s" in done.stderr


def test_a_syntax_error_is_126_with_its_place(live_node: LiveNode, tmp_path: Path) -> None:
    file = tmp_path / "broken.py"
    file.write_text("x = 1\ny = (\n")
    done = live_node.mayfly("run", str(file))
    assert (done.returncode, done.stdout) == (126, b"")
    assert b"broken.py:2" in done.stderr


def test_a_denied_program_is_126_and_is_not_run(live_node: LiveNode) -> None:
    done = live_node.mayfly("run", "--policy", "strict", "--json", "-c", "import socket\nprint('ran')\n")
    assert done.returncode == 126
    result = json.loads(done.stdout)
    assert (result["status"], result["stdout"]) == ("denied", "")
    assert [stage["name"] for stage in result["stages"]] == ["scan"]
    assert any(finding["line"] == 1 for finding in result["scan"]["findings"])


def test_ctrl_c_is_130_and_takes_the_machine_with_it(live_node: LiveNode) -> None:
    with live_node.start("run", "-c", WAITS) as process:
        assert process.stdout.readline() == b"waiting\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, b"")
    assert b"Traceback" not in err


def test_a_killed_command_takes_the_machine_with_it(live_node: LiveNode) -> None:
    with live_node.start("run", "-c", WAITS) as process:
        assert process.stdout.readline() == b"waiting\n"
        process.kill()
        process.communicate(timeout=60)
    live_node.settle()


def test_a_reader_that_leaves_ends_the_program(live_node: LiveNode) -> None:
    with live_node.start("run", "--timeout", "300", "-c", CHATTERS) as process:
        assert process.stdout.readline() == b"line\n"
        process.stdout.close()
        assert process.wait(60) == 141
        assert process.stderr.read() == b""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--timeout", "0", "-c", "1"], "--timeout"),
        (["--timeout", "-1", "-c", "1"], "--timeout"),
        (["--timeout", "31536000", "-c", "1"], "--timeout"),
        (["--timeout", "nan", "-c", "1"], "--timeout"),
        (["--mem", "1", "-c", "1"], "--mem"),
        (["--mem", "1048576", "-c", "1"], "--mem"),
        (["--mem", "16384", "-c", "1"], "--mem"),
        (["--lang", "cobol", "-c", "1"], "--lang"),
        (["/nowhere/program.py"], "there is no file /nowhere/program.py"),
        (["/"], "is a directory"),
        (["--policy", "unheard-of", "-c", "1"], "unheard-of"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_use_is_2_and_one_sentence_that_names_it(live_node: LiveNode, arguments: list[str], said: str) -> None:
    done = live_node.mayfly("run", *arguments)
    assert (done.returncode, done.stdout) == (2, b"")
    assert said in done.stderr.decode().splitlines()[-1]


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"#" * 10_000_000, "10,000,000 bytes"), (os.urandom(4096) + b"\xff", "not UTF-8"), (b"print(1)\0", None)],
    ids=["10 MB", "garbage", "NUL"],
)
def test_what_is_no_program_is_refused_before_anything_is_launched(
    live_node: LiveNode, tmp_path: Path, content: bytes, said: str | None
) -> None:
    file = tmp_path / "program.py"
    file.write_bytes(content)
    done = live_node.mayfly("run", str(file))
    assert done.returncode == (126 if said is None else 2)
    assert done.stdout == b""
    assert said is None or said in done.stderr.decode()


def test_an_unreadable_file_is_said_to_be(live_node: LiveNode, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        file = tmp_path / "secret.py"
        file.write_text("print(1)")
        file.chmod(0)
    else:  # root reads every mode; what it cannot open either is a socket
        import socket

        file = tmp_path / "secret.py"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(file))
    done = live_node.mayfly("run", str(file))
    assert (done.returncode, done.stdout) == (2, b"")
    assert str(file) in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()


def test_a_node_that_is_not_there_is_125(live_node: LiveNode, tmp_path: Path) -> None:
    done = live_node.mayfly("run", "--node", f"unix:{tmp_path}/none.sock", "-c", "print(1)")
    assert (done.returncode, done.stdout) == (125, b"")
    assert len(done.stderr.splitlines()) == 1
    assert b"none.sock" in done.stderr


def test_a_node_of_another_version_is_125(live_node: LiveNode, tmp_path: Path) -> None:
    with serve_in_thread(ScriptedNode(api=2), unix_socket=tmp_path / "n"):
        done = live_node.mayfly("run", "--node", f"unix:{tmp_path}/n", "-c", "print(1)")
    assert (done.returncode, done.stdout) == (125, b"")
    assert b"API version 2" in done.stderr


def test_host_status_tells_that_it_is_up(live_node: LiveNode) -> None:
    if not (live_node.paths.run / "host.json").exists():
        pytest.skip("an emulated host: this machine's KVM is used instead")
    done = live_node.mayfly("host", "status", "--json")
    shown = json.loads(done.stdout)
    assert (done.returncode, shown["up"], shown["current"]) == (0, True, True)
    assert shown["disk_bytes"] > 0
