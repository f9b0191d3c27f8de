"""The command line: what a person types, sees, and gets as exit code."""

from __future__ import annotations

import errno
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mayfly.cli import COMMANDS, _run
from mayfly.cli.report import Progress, refusal, timings
from mayfly.client import discovery
from mayfly.model import CODE_MAX_BYTES, Execution, ExecutionId, Finding, HostInfo, Stage, Verdict
from mayfly.testing.nodes import ScriptedNode, serve_in_thread

if TYPE_CHECKING:
    from collections.abc import Iterator

MAYFLY = [sys.executable, "-m", "mayfly"]


@pytest.fixture
def node() -> ScriptedNode:
    return ScriptedNode()


@pytest.fixture(autouse=True)
def _surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("MAYFLY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MAYFLY_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(discovery, "SYSTEM_SOCKET", tmp_path / "system.sock")


@pytest.fixture
def served(node: ScriptedNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedNode]:
    monkeypatch.setenv("MAYFLY_NODE", f"unix:{tmp_path / 'n'}")
    with serve_in_thread(node, unix_socket=tmp_path / "n"):
        yield node


def mayfly(*args: str, stdin: bytes | None = None, **env: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*MAYFLY, *args],
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        timeout=60,
        check=False,
        env={**os.environ, **env},
    )


@pytest.mark.usefixtures("served")
def test_output_and_exit_code_are_the_program_s(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert _run(["run", "-c", "out hi\nerr oops\nhex ff00\nexit 7"]) == 7
    assert capfdbinary.readouterr() == (b"hi\n\xff\x00", b"oops\n")


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        ("timeout", 124, "stopped after 30 s; --timeout gives more"),
        ("cpu_limit", 124, "CPU time"),
        ("oom", 137, "256 MiB of memory; --mem gives more"),
        ("agent_lost", 125, "microVM was lost"),
        ("error", 125, "failed"),
        ("denied", 126, "the scan refused this program (policy default)"),
    ],
)
@pytest.mark.usefixtures("served")
def test_each_end_has_its_exit_code_and_a_sentence(
    capfd: pytest.CaptureFixture[str], status: str, code: int, said: str
) -> None:
    assert _run(["run", "-c", f"status {status}"]) == code
    out, err = capfd.readouterr()
    assert out == ""
    assert said in err


@pytest.mark.usefixtures("served")
def test_a_refusal_shows_the_finding_with_its_line(capfd: pytest.CaptureFixture[str]) -> None:
    assert _run(["run", "-c", "status denied"]) == 126
    err = capfd.readouterr().err
    assert "program:1:0: high MF-TEST: the script says so" in err
    assert "      1 | status denied\n          ^" in err


def test_options_reach_the_node(served: ScriptedNode, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tool.sh").write_text("args\nenv\n")
    options = ["--timeout", "5", "--mem", "300", "--vcpus", "2", "--policy", "strict", "--env", "A=b=c"]
    assert _run(["run", *options, str(tmp_path / "tool.sh"), "--", "-x", "y z"]) == 0
    assert capfd.readouterr().out == "-x y z\n[('A', 'b=c')]\n"
    request = served.requests[0]
    assert (request.lang, request.filename, request.policy) == ("bash", "tool.sh", "strict")
    assert (request.limits.timeout_s, request.limits.mem_mib, request.limits.vcpus) == (5.0, 300, 2)


@pytest.mark.parametrize(
    ("name", "content", "lang"),
    [
        ("a.py", "", "python"),
        ("a.sh", "", "bash"),
        ("a.BASH", "", "bash"),
        ("tool", "#!/usr/bin/env bash\n", "bash"),
        ("tool", "#!/bin/sh -e\n", "bash"),
        ("tool", "#!/usr/bin/env python3\n", "python"),
        ("tool", "#!/usr/bin/perl\n", "python"),
        ("tool", "", "python"),
    ],
)
def test_the_language_comes_from_the_ending_or_the_first_line(
    served: ScriptedNode, tmp_path: Path, name: str, content: str, lang: str
) -> None:
    (tmp_path / name).write_text(content)
    assert _run(["run", str(tmp_path / name)]) == 0
    assert served.requests[0].lang == lang
    assert _run(["run", "--lang", "bash", str(tmp_path / name)]) == 0
    assert served.requests[1].lang == "bash"


def test_words_after_a_program_given_in_the_command_are_its_arguments(
    served: ScriptedNode, capfd: pytest.CaptureFixture[str]
) -> None:
    assert _run(["run", "-c", "args", "one", "--", "--two"]) == 0
    assert capfd.readouterr().out == "one --two\n"
    assert served.requests[0].filename is None


@pytest.mark.usefixtures("served")
def test_json_prints_one_object_and_nothing_else(capfd: pytest.CaptureFixture[str]) -> None:
    assert _run(["run", "--json", "-c", "out hi\nexit 3"]) == 3
    out, err = capfd.readouterr()
    execution = json.loads(out)
    assert (execution["status"], execution["exit_code"], execution["stdout"], err) == ("failed", 3, "hi\n", "")
    wanted = {"id", "status", "exit_code", "stdout", "stderr", "truncated", "error", "scan", "stages", "usage", "host"}
    assert wanted <= set(execution)


def test_json_reports_a_failure_as_an_object_too(capfd: pytest.CaptureFixture[str]) -> None:
    assert _run(["run", "--json", "--node", "unix:/nonexistent/s", "-c", ""]) == 125
    assert json.loads(capfd.readouterr().out)["error"]["code"] == "node_unavailable"
    assert _run(["run", "--json", "--mem", "1", "-c", ""]) == 2
    assert json.loads(capfd.readouterr().out)["error"]["field"] == "limits.mem_mib"


@pytest.mark.usefixtures("served")
def test_timings_are_one_line_after_the_output(capfd: pytest.CaptureFixture[str]) -> None:
    assert _run(["run", "--timings", "-c", "out hi"]) == 0
    assert capfd.readouterr().err == "scan 0 ms · execute 1.5 s | Firecracker none | host fake\n"


def test_an_empty_program_runs_and_prints_nothing(served: ScriptedNode, capfd: pytest.CaptureFixture[str]) -> None:
    assert _run(["run", "-c", ""]) == 0
    assert capfd.readouterr() == ("", "")
    assert served.requests[0].code == ""


WRONG: dict[str, tuple[list[str], str]] = {
    "pool of -1": (["serve", "--pool-loaded", "-1"], "pool_loaded must be a whole number from 0 to 1,024, not -1"),
    "pool of 10000": (["serve", "--pool-primed", "10000"], "pool_primed must be a whole number from 0 to 256"),
    "disk of 1 MiB": (["run", "--scratch", "1", "-c", ""], "--scratch must be 0 or from 16 to 16,384, not 1"),
    "no rate": (["run", "--io-mbps", "0", "-c", ""], "--io-mbps must be a whole number from 1 to 10,000, not 0"),
    "an image's name": (["run", "--image", "A B", "-c", ""], "--image must be text"),
    "no program": (["run"], "say which program to run"),
    "missing file": (["run", "{dir}/none.py"], "there is no file"),
    "directory": (["run", "{dir}"], "is a directory"),
    "10 MB": (["run", "{dir}/big.py"], "may have at most 256 KiB"),
    "endless device": (["run", "/dev/zero"], "may have at most 256 KiB"),
    "binary": (["run", "{dir}/binary.py"], "is not UTF-8 text: byte 1 is 0xff"),
    "unknown language": (["run", "--lang", "ruby", "-c", ""], "--lang must be one of bash, python, not 'ruby'"),
    "timeout 0": (["run", "--timeout", "0", "-c", ""], "--timeout must be a number from 0.1 to 3,600, not 0.0"),
    "timeout negative": (["run", "--timeout", "-1", "-c", ""], "--timeout must be a number from 0.1"),
    "timeout nan": (["run", "--timeout", "nan", "-c", ""], "--timeout must be a number from 0.1"),
    "timeout a year": (["run", "--timeout", "31536000", "-c", ""], "--timeout must be a number from 0.1"),
    "timeout soon": (["run", "--timeout", "soon", "-c", ""], "'soon' is not a valid float"),
    "memory 1 MiB": (["run", "--mem", "1", "-c", ""], "--mem must be a whole number from 64 to 16,384, not 1"),
    "memory 1 TiB": (["run", "--mem", "1048576", "-c", ""], "--mem must be a whole number from 64"),
    "env without =": (["run", "--env", "A", "-c", ""], "--env must be NAME=VALUE"),
    "env with a wrong name": (["run", "--env", "A B=c", "-c", ""], "--env"),
    "policy with a wrong name": (["run", "--policy", "../x", "-c", ""], "--policy must be text"),
    "node nowhere": (["run", "--node", "ftp://x", "-c", ""], "must be unix:PATH"),
    "NUL in an argument": (["run", "-c", "", "a\0b"], "NUL"),
    "unknown option": (["run", "--memory", "1"], "No such option"),
    "unknown command": (["rum"], "did you mean run?"),
    "a file as command": (["{dir}/ok.py"], "to run a file, say: mayfly run"),
    "refused by the node": (["run", "-c", "refuse invalid_request"], "refused by the script"),
    "serve tcp without token": (["serve", "--tcp", "localhost:1"], "--token-file"),
    "serve nonsense": (["serve", "--tcp", "here", "--token-file", "/x"], "HOST:PORT"),
    "serve for an unknown group": (["serve", "--socket-group", "no-such-group"], "no group"),
}


@pytest.mark.parametrize("case", WRONG.values(), ids=WRONG)
@pytest.mark.usefixtures("served")
def test_wrong_use_is_one_sentence_and_exit_code_2(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, case: tuple[list[str], str]
) -> None:
    (tmp_path / "ok.py").write_text("")
    (tmp_path / "big.py").write_bytes(b"#" * 10_000_000)
    (tmp_path / "binary.py").write_bytes(b"a\xff\x00\x01")
    args, said = case
    assert _run([arg.replace("{dir}", str(tmp_path)) for arg in args]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert said in err
    assert "Traceback" not in err
    assert len(err.splitlines()) <= 3


def test_a_file_that_may_not_be_read_is_said_so(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    really_open = Path.open

    def refuse(path: Path, *args: Any, **options: Any) -> Any:
        if path.name == "secret.py":
            raise PermissionError(errno.EACCES, "Permission denied")
        return really_open(path, *args, **options)

    # Root may read everything, so the system's refusal is played.
    monkeypatch.setattr("pathlib.Path.open", refuse)
    assert _run(["run", "--node", "unix:/n", str(tmp_path / "secret.py")]) == 2
    assert "may not be read by you" in capfd.readouterr().err


def test_a_program_at_the_limit_is_taken(served: ScriptedNode, tmp_path: Path) -> None:
    (tmp_path / "full.py").write_bytes(b"#" * CODE_MAX_BYTES)
    assert _run(["run", str(tmp_path / "full.py")]) == 0
    assert len(served.requests[0].code) == CODE_MAX_BYTES


def test_a_program_in_a_pipe_is_read(served: ScriptedNode, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=("out piped",))
    writer.start()
    assert _run(["run", str(tmp_path / "pipe")]) == 0
    writer.join()
    assert served.requests[0].code == "out piped"


def test_a_missing_node_is_exit_code_125_and_one_sentence(capfd: pytest.CaptureFixture[str]) -> None:
    assert _run(["run", "--node", "unix:/nonexistent/s", "-c", ""]) == 125
    assert capfd.readouterr().err == ("mayfly: no node answers at unix:/nonexistent/s: no such file or directory\n")


@pytest.mark.parametrize("code", ["capacity", "vmm", "setup"])
@pytest.mark.usefixtures("served")
def test_what_fails_in_mayfly_is_exit_code_125(capfd: pytest.CaptureFixture[str], code: str) -> None:
    assert _run(["run", "-c", f"refuse {code}"]) == 125
    assert capfd.readouterr().err == "mayfly: refused by the script\n"


def test_standard_input_passes_through_as_it_comes(served: ScriptedNode) -> None:
    done = mayfly("run", "-c", "echo", stdin=b"caf\xc3\xa9\xff\x00end")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"caf\xc3\xa9\xff\x00end", b"")
    assert served.requests[0].stdin_stream


@pytest.mark.usefixtures("served")
def test_a_conversation_needs_no_end_of_input() -> None:
    with subprocess.Popen([*MAYFLY, "run", "-c", "echo"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for line in (b"one\n", b"two\n"):
            process.stdin.write(line)
            process.stdin.flush()
            assert process.stdout.readline() == line
        process.stdin.close()
        assert process.wait(30) == 0


@pytest.mark.usefixtures("served")
def test_an_input_that_never_ends_does_not_keep_a_finished_program() -> None:
    with subprocess.Popen([*MAYFLY, "run", "-c", "out x"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.wait(30) == 0


def test_a_file_as_standard_input_works(served: ScriptedNode, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"x" * 300_000)
    with (tmp_path / "in").open("rb") as stdin:
        done = subprocess.run([*MAYFLY, "run", "-c", "echo"], stdin=stdin, capture_output=True, timeout=60, check=False)
    assert (done.returncode, len(done.stdout)) == (0, 300_000)
    assert served.requests


def test_the_program_may_come_from_standard_input(served: ScriptedNode) -> None:
    done = mayfly("run", "-", "--", "x", stdin=b"args\necho\n")
    assert (done.returncode, done.stdout) == (0, b"x\n")
    assert not served.requests[0].stdin_stream


@pytest.mark.usefixtures("served")
def test_closed_standard_streams_are_no_trouble() -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", f"{sys.executable} -m mayfly run -c 'out x' <&- 2>&-"],
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, b"x\n")


def test_ctrl_c_ends_the_program_and_is_exit_code_130(served: ScriptedNode) -> None:
    with subprocess.Popen(
        [*MAYFLY, "run", "-c", "out up\nsleep 60"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert process.stderr is not None
        assert process.stderr.read() == b""
    _wait_for(lambda: bool(served.cancelled))


def test_ctrl_c_is_heard_while_nobody_reads_the_output(served: ScriptedNode) -> None:
    with subprocess.Popen([*MAYFLY, "run", "-c", "flood 100"], stdout=subprocess.PIPE) as process:
        _wait_for(lambda: served.written_events > 5)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    _wait_for(lambda: bool(served.cancelled))


def test_a_reader_that_leaves_ends_the_program_quietly(served: ScriptedNode) -> None:
    with subprocess.Popen(
        [*MAYFLY, "run", "-c", "flood 100\nsleep 60"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(1)
        process.stdout.close()
        assert process.wait(30) == 141
        assert process.stderr.read() == b""
    _wait_for(lambda: bool(served.cancelled))


def test_a_node_that_dies_under_the_program_is_exit_code_125(tmp_path: Path) -> None:
    with serve_in_thread(ScriptedNode(), unix_socket=tmp_path / "n"):
        process = subprocess.Popen(
            [*MAYFLY, "run", "--node", str(tmp_path / "n"), "-c", "out up\nsleep 60"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
    with process:
        assert process.wait(30) == 125
        assert process.stderr is not None
        assert process.stderr.read().startswith(b"mayfly: the node at unix:")


def test_every_command_has_help_and_the_table_lists_it(capfd: pytest.CaptureFixture[str]) -> None:
    assert _run(["--help"]) == 0
    listing = capfd.readouterr().out
    for name in COMMANDS:
        assert f"  {name} " in listing
        if name != "scan":
            assert _run([name, "--help"]) == 0
            assert capfd.readouterr().out.startswith(f"Usage: mayfly {name} ")


def test_the_version_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    assert _run(["--version"]) == 0
    assert re.fullmatch(r"mayfly \d+\.\d+\.\d+\n", capfd.readouterr().out)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_name_the_command(shell: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert _run(["completion", shell]) == 0
    assert "_MAYFLY_COMPLETE" in capfd.readouterr().out


def test_completion_completes_commands_and_options() -> None:
    done = mayfly(_MAYFLY_COMPLETE="bash_complete", COMP_WORDS="mayfly r", COMP_CWORD="1")
    assert b"run" in done.stdout
    done = mayfly(_MAYFLY_COMPLETE="bash_complete", COMP_WORDS="mayfly run --ti", COMP_CWORD="2")
    assert b"--timeout" in done.stdout
    assert b"--timings" in done.stdout
    done = mayfly(_MAYFLY_COMPLETE="bash_complete", COMP_WORDS="mayfly run --lang b", COMP_CWORD="3")
    assert done.stdout == b"plain,bash\n"
    done = mayfly(_MAYFLY_COMPLETE="bash_complete", COMP_WORDS="mayfly run exa", COMP_CWORD="2")
    assert done.stdout == b"file,exa\n"


def test_colours_are_for_terminals_and_not_with_no_color() -> None:
    plain = _on_terminal(["run", "--node", "unix:/nonexistent/s", "-c", ""], NO_COLOR="1")
    coloured = _on_terminal(["run", "--node", "unix:/nonexistent/s", "-c", ""], TERM="xterm")
    assert b"\x1b" not in plain
    assert b"\x1b[31mmayfly:\x1b[0m" in coloured


def _on_terminal(args: list[str], **env: str) -> bytes:
    ours, theirs = pty.openpty()
    surroundings = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | env
    with subprocess.Popen([*MAYFLY, *args], stdin=subprocess.DEVNULL, stderr=theirs, env=surroundings) as process:
        process.wait(30)
    os.close(theirs)
    shown = os.read(ours, 4096)
    os.close(ours)
    return shown


def test_what_could_steer_a_terminal_is_written_out() -> None:
    finding = Finding(rule="R", severity="high", message="bad \x1b[2J thing", line=1, column=4)
    denied = _execution(status="denied", scan=Verdict(verdict="deny", findings=(finding,)))
    shown = refusal(denied, "x = '\x1b]0;title\x07 \u202e'", name="a.py", policy="default")
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert "bad \\x1b[2J thing" in shown


def test_the_caret_stands_under_the_column_also_after_wide_characters() -> None:
    finding = Finding(rule="R", severity="high", message="m", line=2, column=len("é = ".encode()) + 1)
    denied = _execution(status="denied", scan=Verdict(verdict="deny", findings=(finding,)))
    *_, source, caret = refusal(denied, "\né = evil()", name="a.py", policy="default").splitlines()
    assert source[caret.index("^") :] == "evil()"


def test_timings_name_stages_firecracker_and_host() -> None:
    execution = _execution(
        stages=(Stage("scan", 1.2), Stage("launch", 3912.0), Stage("destroy", 41.0)),
        host=HostInfo(kind="emulated", firecracker="1.12.1"),
    )
    assert timings(execution) == "scan 1 ms · launch 3.9 s · destroy 41 ms | Firecracker 1.12.1 | host emulated"


def test_progress_is_silent_when_it_was_quick(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress()
    progress.say("starting the emulated host")
    progress.close()
    assert capsys.readouterr().err == ""


def test_progress_speaks_when_it_takes_long(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mayfly.cli.report._QUIET_S", 0.05)
    progress = Progress()
    progress.say("starting the emulated host")
    _wait_for(lambda: not progress._held)
    progress.say("starting the node")
    progress.close()
    assert capsys.readouterr().err == "mayfly: starting the emulated host\nmayfly: starting the node\n"


def _execution(**fields: Any) -> Execution:
    values: dict[str, Any] = {"id": ExecutionId("ex-1"), "status": "succeeded", "exit_code": 0}
    return Execution(**(values | fields))


def _wait_for(condition: Any) -> None:
    waited = threading.Event()
    for _ in range(2000):
        if condition():
            return
        waited.wait(0.01)
    pytest.fail("did not happen within 20 s")


def test_ps_says_what_waits_and_starts_nothing(tmp_path: Path) -> None:
    none = mayfly("ps", MAYFLY_HOME=str(tmp_path / "s"))
    assert none.returncode == 125
    assert b"no node is running" in none.stderr
    assert not (tmp_path / "s" / "run" / "host.json").exists()
