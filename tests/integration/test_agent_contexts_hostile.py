"""Code that works against its interpreter: each gets a clear answer, and the next run works."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import anyio
import pytest

from mayfly.errors import ProtocolError
from mayfly.testing.guests import libraries_path, open_guest, run_cell

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mayfly.guest.sandbox import Guest

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module", params=["plain", "IPython"])
async def guest(request: pytest.FixtureRequest) -> AsyncIterator[Guest]:
    path = libraries_path() if request.param == "IPython" else ""
    if path is None:
        pytest.skip("IPython is not installed for the system's Python")
    async with open_guest() as guest:
        await guest.create_context("default", lang="python", env={"PYTHONPATH": path})
        yield guest


@pytest.mark.parametrize(
    "code",
    [
        "import sys; sys.stdout = None; sys.stderr = 5",
        "import sys; sys.stdout.close(); sys.stderr.close(); sys.stdin.close()",
        "import sys; sys.stdout.detach()",
        "import os\nfor fd in range(3): os.close(fd)",
        "import os\nfd = os.open('/dev/null', os.O_RDWR)\nfor n in range(3): os.dup2(fd, n)",
        "import sys; sys.displayhook = sys.excepthook = None",
        "import builtins; builtins.display = builtins.print = builtins.open = None",
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)",
        "import os; os.environ.clear(); os.chdir('/')",
        "import json, traceback; json.dumps = traceback.TracebackException = None",
        "import os\nif os.fork() == 0: x = 1",
        "import threading\nfails = threading.Thread(target=lambda: 1 / 0)\nfails.start()\nfails.join()",
        "globals().clear()",
        "import sys; sys.setrecursionlimit(60)",
        "import gc; [o.clear() for o in gc.get_objects() if type(o) is list and len(o) == 12345]",
    ],
)
async def test_the_next_run_works_and_prints(guest: Guest, code: str) -> None:
    await run_cell(guest, code, timeout_s=20)
    cell = await run_cell(
        guest, "import sys\nsys.stdout.write('out\\n')\nsys.stderr.write('err\\n')\n6 * 7", timeout_s=20
    )
    assert (cell.printed().splitlines()[-1:], cell.printed("stderr").splitlines()[-1:]) == (["out"], ["err"])
    assert cell.text == "42"
    looped = await run_cell(guest, "while True: pass", timeout_s=0.3)
    assert looped.end.status == "timeout"
    await guest.restart_context("default")


@pytest.mark.parametrize(
    "code",
    [
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        "import os, signal; os.killpg(0, signal.SIGKILL)",
        "import ctypes; ctypes.string_at(0)",
        "import os; os.closerange(3, 4096)",
        (
            "import os\nfor fd in range(3, 4096):\n"
            "    try: os.write(fd, b'no message at all, but long enough')\n    except OSError: pass"
        ),
        "import os, sys; os.execv('/bin/true', ['true'])",
    ],
)
async def test_an_interpreter_that_is_ended_or_cut_off_is_lost_and_replaced(guest: Guest, code: str) -> None:
    await run_cell(guest, "x = 1")
    cell = await run_cell(guest, code, timeout_s=20)
    assert (cell.end.status, cell.end.state_lost) == ("lost", True)
    assert cell.end.reason
    assert (await run_cell(guest, "'x' in globals()")).text == "False"


async def test_an_interpreter_that_stops_itself_is_ended_by_its_time(guest: Guest) -> None:
    cell = await run_cell(guest, "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)", timeout_s=0.3)
    assert (cell.end.status, cell.end.state_lost) == ("timeout", True)
    assert (await run_cell(guest, "1 + 1")).text == "2"


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (b"r", b"no JSON"),
        (b"r", b'{"data": 5}'),
        (b"r", b'{"data": {"text/plain": 5}}'),
        (b"r", b"[" * 100_000),
        (b"e", b'{"name": 1}'),
    ],
)
async def test_forged_results_are_refused_and_cost_their_own_run_only(
    guest: Guest, kind: bytes, payload: bytes
) -> None:
    forged = struct.pack("!Ic", len(payload), kind) + payload
    code = (
        f"FORGED = {forged!r}\n"
        "import os, stat\n"
        "for fd in range(3, 4096):\n"
        "    try:\n"
        "        if stat.S_ISSOCK(os.fstat(fd).st_mode): os.write(fd, FORGED)\n"
        "    except OSError: pass\n"
    )
    with pytest.raises(ProtocolError):
        await run_cell(guest, code, timeout_s=20)
    await guest.restart_context("default")
    assert (await run_cell(guest, "1 + 1")).text == "2"


async def test_a_forged_end_ends_the_run_it_forges_and_no_other(guest: Guest) -> None:
    done = b'{"status": "ok", "execution_count": 99, "guest_ms": -1}'
    forged = struct.pack("!Ic", len(done), b"d") + done
    code = (
        f"FORGED = {forged!r}\n"
        "import os, stat, time\n"
        "for fd in range(3, 4096):\n"
        "    try:\n"
        "        if stat.S_ISSOCK(os.fstat(fd).st_mode): os.write(fd, FORGED)\n"
        "    except OSError: pass\n"
        "time.sleep(0.2)\n"
    )
    assert (await run_cell(guest, code)).end.status == "ok"
    await anyio.sleep(0.5)
    await guest.restart_context("default")
    assert (await run_cell(guest, "1 + 1")).text == "2"


async def test_invalid_text_is_shown_not_refused(guest: Guest) -> None:
    cell = await run_cell(guest, "import os\nprint('\\ud800 \\x1b[31m')\nos.write(1, b'\\xff\\xfe')\n'\\ud800'")
    assert cell.end.status == "ok"
    raw = b"".join(event.data for event in cell.events if hasattr(event, "stream"))
    assert raw == b"\\ud800 \x1b[31m\n\xff\xfe"
    failed = await run_cell(guest, "raise ValueError('\\ud800' * 200_000)")
    assert failed.error is not None
    assert len(failed.error.value) <= 100_000


async def test_a_long_result_that_is_interrupted_leaves_the_channel_whole(guest: Guest) -> None:
    code = "while True: display('x' * 100_000)"
    for _ in range(3):
        cell = await run_cell(guest, code, timeout_s=0.3)
        assert (cell.end.status, cell.end.state_lost) == ("timeout", False)
    assert (await run_cell(guest, "1 + 1")).text == "2"
