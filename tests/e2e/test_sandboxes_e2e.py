"""Sandboxes that keep state, in real microVMs, through the Python client."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import termios
import time
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mayfly import Sandbox
from mayfly.errors import FileMissingError, SandboxEndedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import LiveNode

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
SALES = "month,shop,amount\nJan,north,10\nJan,south,7\nFeb,north,25\nFeb,south,12\nMar,north,18\nMar,south,30\n"


@pytest.fixture(autouse=True)
def _home(live_node: LiveNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAYFLY_HOME", str(live_node.paths.root))


@pytest.fixture(scope="module")
def sandbox(live_node: LiveNode) -> Iterator[Sandbox]:
    """One sandbox for the tests of this module that leave it usable."""
    with Sandbox(node=live_node.client().address, limits={"mem_mib": 1024}) as sandbox:
        yield sandbox
    live_node.settle()


@pytest.fixture
def data_image(sandbox: Sandbox) -> None:
    """Skips where the image lacks the libraries that data is looked at with."""
    found = sandbox.run_code("import matplotlib, pandas", timeout_s=120)
    if not found.ok:
        pytest.skip("pandas and matplotlib in the image python")


def test_variables_output_and_errors_are_those_of_a_notebook(sandbox: Sandbox) -> None:
    heard: list[str] = []
    assert sandbox.run_code("x = 6\nprint('é')", on_stdout=heard.append).ok
    assert sandbox.run_code("x * 7").text == "42"
    assert "".join(heard) == "é\n"
    failed = sandbox.run_code("1 / 0")
    assert failed.error is not None
    assert (failed.status, failed.error.name) == ("failed", "ZeroDivisionError")
    assert sandbox.run_code("await __import__('asyncio').sleep(0, 'awaited')").text == "'awaited'"


def test_an_endless_loop_is_interrupted_and_the_state_is_kept(sandbox: Sandbox) -> None:
    sandbox.run_code("kept = 1")
    stopped = sandbox.run_code("while True: pass", timeout_s=2)
    assert (stopped.status, stopped.state_lost) == ("timeout", False)
    assert sandbox.run_code("kept").text == "1"


def test_a_context_that_ends_begins_anew_and_says_so(sandbox: Sandbox) -> None:
    context = sandbox.create_context("python")
    ended = sandbox.run_code("import os; os._exit(3)", context=context)
    assert (ended.status, ended.state_lost) == ("context_lost", True)
    assert sandbox.run_code("1 + 1", context=context).text == "2"
    sandbox.remove_context(context)


def test_bash_keeps_its_directory_and_variables(sandbox: Sandbox) -> None:
    assert sandbox.run_code("cd /tmp && WHO=me", language="bash").ok
    told = sandbox.run_code('echo "$WHO $PWD $(id -u)"; (exit 3)', language="bash")
    assert (told.status, told.logs.stdout) == ("failed", "me /tmp 1000\n")


def test_files_go_both_ways_byte_for_byte(sandbox: Sandbox, tmp_path: Path) -> None:
    content = bytes(range(256)) * 8192
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "odd\nname").write_bytes(content)
    assert sandbox.files.upload(tmp_path / "in", "in") == ["in/odd\nname"]
    assert sandbox.files.info("in/odd\nname").size == len(content)
    (back,) = sandbox.files.download("in", tmp_path / "out")
    assert back.read_bytes() == content
    assert b"".join(sandbox.files.stream("in/odd\nname", offset=255, length=3)) == b"\xff\x00\x01"
    sandbox.files.remove("in", recursive=True)
    with pytest.raises(FileMissingError):
        sandbox.files.read("in/odd\nname")


def test_commands_in_the_foreground_and_background(sandbox: Sandbox) -> None:
    done = sandbox.commands.run("tr a-z A-Z; id -u >&2; exit 3", stdin="shout")
    assert (done.exit_code, done.stdout, done.stderr) == (3, "SHOUT", "1000\n")
    slow = sandbox.commands.run("echo up; sleep 600", background=True)
    again = sandbox.commands.connect(slow.pid)
    next(again.events())  # it is up
    assert again.kill("SIGTERM")
    ended = slow.wait()
    assert (ended.status, ended.signal, ended.stdout) == ("signaled", "SIGTERM", "up\n")


def test_a_terminal_is_one(sandbox: Sandbox) -> None:
    with sandbox.pty.open(cols=100, rows=30) as terminal:
        terminal.send("stty size; tty; exit 4\n")
        shown = b"".join(terminal)
        assert terminal.end is not None
        assert terminal.end.exit_code == 4
    assert b"30 100" in shown
    assert b"/dev/pts/" in shown


def test_a_shell_in_a_terminal_hears_keys_sizes_and_ctrl_c(sandbox: Sandbox) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (30, 100))
    command = ["setsid", "--ctty", sys.executable, "-m", "mayfly", "shell", sandbox.id]
    shown = bytearray()

    def hear(wanted: bytes) -> None:
        until = time.monotonic() + 120
        while wanted not in shown:
            assert time.monotonic() < until, bytes(shown)
            if select.select([ours], [], [], 1)[0]:
                shown.extend(os.read(ours, 4096))

    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        try:
            os.write(ours, b"stty size\n")
            hear(b"30 100")
            os.write(ours, b"""until [ "$(stty size)" = "40 120" ]; do sleep 0.1; done; echo re''sized\n""")
            termios.tcsetwinsize(ours, (40, 120))
            hear(b"resized")
            os.write(ours, b"""sh -c 'echo sleep""ing; exec sleep 600'\n""")
            hear(b"sleeping")
            os.write(ours, b"\x03")
            hear(b"^C")
            os.write(ours, b"echo code=$?\n")
            hear(b"code=130")
            os.write(ours, b"exit 7\n")
            hear(b"logout")
            assert process.wait(60) == 7
        finally:
            process.kill()
    os.close(theirs)
    os.close(ours)
    assert sandbox.commands.run("true").exit_code == 0, "it stays, since it was there before"


def test_a_web_server_inside_is_reached_from_here(sandbox: Sandbox) -> None:
    sandbox.files.write("www/page.txt", "from inside")
    server = sandbox.commands.run("cd www && python3 -m http.server 8000 --bind 127.0.0.1", background=True)
    sandbox.run_code(
        "import socket, time\nwhile socket.socket().connect_ex(('127.0.0.1', 8000)):\n    time.sleep(0.1)",
        timeout_s=60,
    )
    with sandbox.expose(8000) as forward:
        for _ in range(3):
            connection = HTTPConnection(forward.host, forward.port, timeout=60)
            connection.request("GET", "/page.txt")
            assert connection.getresponse().read() == b"from inside"
            connection.close()
    server.kill()


def test_the_sandbox_tells_of_itself(sandbox: Sandbox) -> None:
    used = sandbox.metrics()
    assert used.mem_total_bytes < 1100 << 20
    assert used.processes > 0
    assert sandbox.id in [info.id for info in Sandbox.list()]
    assert any(entry.source == "run" for entry in sandbox.logs())
    info = Sandbox.connect(sandbox.id).info()
    assert info.host is not None
    assert info.host.kind in {"kvm", "emulated"}


def test_a_killed_sandbox_leaves_nothing_and_says_that_it_has_ended(live_node: LiveNode) -> None:
    before = {info.id for info in Sandbox.list()}
    gone = Sandbox.create()
    gone.commands.run("sleep 600", background=True)
    assert gone.kill()
    with pytest.raises(SandboxEndedError):
        gone.run_code("1")
    assert not gone.kill()
    assert {info.id for info in Sandbox.list()} == before


def test_an_idle_sandbox_ends_by_itself() -> None:
    idle = Sandbox.create(idle_timeout_s=2)
    until = time.monotonic() + 60
    while idle.info().state == "running":
        assert time.monotonic() < until
        time.sleep(0.2)
    assert "nobody used it" in (idle.info().reason or "")


@pytest.mark.usefixtures("data_image")
def test_an_analysis_as_in_a_notebook_gives_a_picture(sandbox: Sandbox, tmp_path: Path) -> None:
    """Load a CSV file, group, plot, save, download."""
    (tmp_path / "sales.csv").write_text(SALES)
    sandbox.files.upload(tmp_path / "sales.csv", "sales.csv")
    table = sandbox.run_code("import pandas as pd\nsales = pd.read_csv('sales.csv')\nsales", timeout_s=120).results[0]
    assert table.data["rows"][0] == ["Jan", "north", 10]
    assert "<table" in (table.html or "")
    code = (
        "totals = sales.groupby('month', sort=False)['amount'].sum()\n"
        "axes = totals.plot.bar(title='Sales')\n"
        "axes.figure.savefig('sales.png')"
    )
    plotted = sandbox.run_code(code, timeout_s=240)
    (figure,) = [result for result in plotted.results if result.png]
    assert figure.save(tmp_path / "shown.png").read_bytes().startswith(b"\x89PNG")
    assert figure.chart is not None
    assert (figure.chart["kind"], figure.chart["title"]) == ("bar", "Sales")
    (saved,) = sandbox.files.download("sales.png", tmp_path)
    assert saved.read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("data_image")
def test_the_tutorial_runs_as_it_is_printed(run_page: Callable[[Path], int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAYFLY_LIMITS_TIMEOUT_S", "240")  # a first picture takes half a minute of a slow emulated host
    assert run_page(ROOT / "docs" / "tutorial.md") > 12
