"""Processes of a sandbox: followed, kept, attached to again, in a terminal; and ports that they listen on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest

from mayfly.errors import BusyError, InvalidRequestError, NotFoundError, UnsupportedError
from mayfly.guest.shapes import ProcessEnd, ProcessGap, ProcessOutput, ProcessSpec
from mayfly.testing.guests import open_guest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mayfly.guest.processes import ProcessLink
    from mayfly.guest.sandbox import Guest

pytestmark = pytest.mark.anyio


@pytest.fixture
async def guest() -> AsyncIterator[Guest]:
    async with open_guest() as guest:
        yield guest


async def _end(process: ProcessLink) -> tuple[dict[str, bytes], ProcessEnd]:
    output = {"stdout": bytearray(), "stderr": bytearray()}
    async for event in process:
        if isinstance(event, ProcessEnd):
            return {name: bytes(data) for name, data in output.items()}, event
        if isinstance(event, ProcessOutput):
            output[event.stream] += event.data
    raise EOFError


async def _run(guest: Guest, **spec: object) -> tuple[dict[str, bytes], ProcessEnd]:
    async with guest.open_process(ProcessSpec(**spec)) as process:  # type: ignore[arg-type]
        return await _end(process)


async def test_output_exit_code_directory_and_variables(guest: Guest) -> None:
    await guest.make_dir("here")
    line = "echo $WHO; basename $PWD; echo err >&2; exit 3"
    output, end = await _run(guest, shell=line, cwd="here", env={"WHO": "me"})
    assert output == {"stdout": b"me\nhere\n", "stderr": b"err\n"}
    assert (end.reason, end.exit_code, end.signal) == ("exit", 3, None)
    output, end = await _run(guest, argv=["printf", "%s|", "a b", "$HOME", ""])
    assert output["stdout"] == b"a b|$HOME||"
    _, end = await _run(guest, shell="kill -SEGV $$")
    assert (end.reason, end.signal) == ("signal", "SIGSEGV")


async def test_input_of_any_size_arrives_and_ends(guest: Guest) -> None:
    async with guest.open_process(ProcessSpec(shell="wc -c", stdin=True)) as process:
        await process.send_stdin(bytes(3_000_000))
        await process.close_stdin()
        output, _ = await _end(process)
    assert output["stdout"].strip() == b"3000000"
    assert (await _run(guest, shell="cat"))[1].exit_code == 0
    async with guest.open_process(ProcessSpec(shell="exec 0<&-; sleep 0.2; echo done", stdin=True)) as process:
        await process.send_stdin(bytes(1_000_000))
        assert (await _end(process))[0]["stdout"] == b"done\n"


async def test_what_cannot_be_started_is_refused_by_name(guest: Guest) -> None:
    for spec in (ProcessSpec(argv=["no-such-program"]), ProcessSpec(argv=["true"], cwd="/nowhere")):
        with pytest.raises(InvalidRequestError, match=r"no-such-program|/nowhere"):
            async with guest.open_process(spec):
                pass
    for spec in (ProcessSpec(), ProcessSpec(argv=["a"], shell="b"), ProcessSpec(argv=["a\0"])):
        with pytest.raises(InvalidRequestError, match="argv"):
            async with guest.open_process(spec):
                pass
    assert await guest.list_processes() == []


async def test_a_process_that_is_not_kept_ends_with_its_connection(guest: Guest) -> None:
    async with guest.open_process(ProcessSpec(shell="sleep 100 & sleep 100; echo no")) as process:
        assert [each.pid for each in await guest.list_processes()] == [process.pid]
    with anyio.fail_after(10):
        while await guest.list_processes():  # noqa: ASYNC110  the agent tells nobody
            await anyio.sleep(0.01)


async def test_a_kept_process_goes_on_and_is_attached_to_from_any_place(guest: Guest) -> None:
    line = "for n in 1 2 3; do echo $n; done; read x; echo got $x >&2; exit 5"
    async with guest.open_process(ProcessSpec(shell=line, keep=True, stdin=True)) as process:
        pid = process.pid
        async for event in process:
            assert isinstance(event, ProcessOutput)
            if event.data.endswith(b"3\n"):
                break
    (info,) = await guest.list_processes()
    assert (info.pid, info.running, info.output_bytes, info.command) == (pid, True, 6, line)
    await guest.write_stdin(pid, b"input\n")
    async with guest.attach_process(pid, offset=2) as process:
        output, end = await _end(process)
    assert (output, end.exit_code) == ({"stdout": b"2\n3\n", "stderr": b"got input\n"}, 5)
    async with guest.attach_process(pid) as process:
        assert (await _end(process))[0]["stdout"] == b"1\n2\n3\n"
    (info,) = await guest.list_processes()
    assert info.end is not None
    assert (info.running, info.end.exit_code) == (False, 5)
    with pytest.raises(InvalidRequestError, match="offset"):
        async with guest.attach_process(pid, offset=10_000):
            pass


async def test_two_follow_one_process_and_see_the_same(guest: Guest) -> None:
    seen: list[bytes] = []

    async def follow(pid: int) -> None:
        async with guest.attach_process(pid) as process:
            seen.append((await _end(process))[0]["stdout"])

    spec = ProcessSpec(shell="read go; seq 20000", keep=True, stdin=True)
    async with guest.open_process(spec) as process, anyio.create_task_group() as tasks:
        tasks.start_soon(follow, process.pid)
        tasks.start_soon(follow, process.pid)
        await anyio.sleep(0.1)
        await process.send_stdin(b"go\n")
        seen.append((await _end(process))[0]["stdout"])
    assert len(seen) == 3
    assert len(set(seen)) == 1
    assert seen[0].endswith(b"20000\n")


async def test_what_nobody_followed_is_kept_up_to_its_limit_and_the_gap_is_told(guest: Guest) -> None:
    spec = ProcessSpec(shell="read go; seq 100000; echo end", keep=True, stdin=True, buffer_bytes=10_000)
    async with guest.open_process(spec) as process:
        pid = process.pid
    await guest.write_stdin(pid, b"go\n")
    with anyio.fail_after(20):
        while (await guest.list_processes())[0].running:  # noqa: ASYNC110  the agent tells nobody
            await anyio.sleep(0.01)
    async with guest.attach_process(pid) as process:
        events = [event async for event in process]
    assert isinstance(events[0], ProcessGap)
    tail = b"".join(event.data for event in events if isinstance(event, ProcessOutput))
    assert events[0].missing_bytes + len(tail) == 588_895 + 4
    assert 10_000 <= len(tail) <= 10_000 + 2 * 65_536
    assert tail.endswith(b"100000\nend\n")


async def test_a_follower_that_does_not_read_slows_its_process_and_nobody_else(guest: Guest) -> None:
    async with guest.open_process(ProcessSpec(shell="yes | head -c 50000000")) as process:
        await anyio.sleep(0.3)
        assert (await _run(guest, shell="echo other"))[0]["stdout"] == b"other\n"
        assert (await guest.list_processes())[0].output_bytes < 20_000_000
        assert len((await _end(process))[0]["stdout"]) == 50_000_000


async def test_signals_and_time_limits_end_processes(guest: Guest) -> None:
    async with guest.open_process(
        ProcessSpec(shell="trap 'echo term; exit 7' TERM; echo up; sleep 60 & wait")
    ) as process:
        async for event in process:
            assert isinstance(event, ProcessOutput)
            break
        await process.signal("SIGTERM")
        output, end = await _end(process)
    assert (output["stdout"], end.exit_code) == (b"term\n", 7)
    _, end = await _run(guest, shell="trap '' TERM INT HUP; while :; do sleep 1; done", timeout_s=0.3)
    assert end.reason == "timeout"
    with pytest.raises(NotFoundError, match="no process 1"):
        await guest.signal_process(1, "SIGTERM")
    async with guest.open_process(ProcessSpec(shell="sleep 60", keep=True)) as process:
        with pytest.raises(InvalidRequestError, match="SIGTERM"):
            await guest.signal_process(process.pid, "SIGNAL")
        await guest.signal_process(process.pid, "SIGKILL")
        assert (await _end(process))[1].signal == "SIGKILL"


async def test_what_a_kept_process_leaves_running_goes_on(guest: Guest) -> None:
    _, end = await _run(guest, shell="(sleep 0.6; echo late > late) & echo up", keep=True)
    assert end.exit_code == 0
    await anyio.sleep(1.2)
    assert (await guest.stat("late")).size == 5


async def test_a_terminal_has_a_size_echo_and_end_of_file(guest: Guest) -> None:
    async with guest.open_process(
        ProcessSpec(argv=["bash", "--norc", "-i"], pty=(100, 30), env={"PS1": "$ "})
    ) as shell:
        await shell.send_stdin(b"stty size; tty -s && echo is-a-tty\n")
        await shell.resize(44, 12)
        await shell.send_stdin(b"sleep 0.2; stty size; echo $TERM\n")
        await shell.send_stdin(b"sleep 60\n")
        await anyio.sleep(0.8)
        await shell.send_stdin(b"\x03")
        await shell.send_stdin(b"exit 4\n")
        output, end = await _end(shell)
    text = output["stdout"].decode()
    assert "is-a-tty" in text
    assert "12 44" in text
    assert "xterm-256color" in text
    assert output["stderr"] == b""
    assert end.exit_code == 4
    async with guest.open_process(ProcessSpec(shell="cat; echo ended", pty=(80, 24))) as process:
        await process.close_stdin()
        assert b"ended" in (await _end(process))[0]["stdout"]


async def test_the_number_of_processes_is_bounded(guest: Guest) -> None:
    async def hold() -> None:
        async with guest.open_process(ProcessSpec(argv=["sleep", "60"])):
            await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        for _ in range(128):
            tasks.start_soon(hold)
        with anyio.fail_after(60):
            while len(await guest.list_processes()) < 128:  # noqa: ASYNC110  the agent tells nobody
                await anyio.sleep(0.05)
        with pytest.raises(BusyError, match="128"):
            await _run(guest, shell="true")
        tasks.cancel_scope.cancel()


async def test_a_port_carries_bytes_both_ways_and_half_closes(guest: Guest) -> None:
    server = (
        "import socket\n"
        "s = socket.create_server(('127.0.0.1', 0))\nprint(s.getsockname()[1], flush=True)\n"
        "while True:\n    c, _ = s.accept()\n    data = b''\n"
        "    while piece := c.recv(65536): data += piece\n"
        "    c.sendall(b'%d ' % len(data) + data[-3:]); c.close()\n"
    )
    async with guest.open_process(ProcessSpec(argv=["python3", "-c", server])) as process:
        async for event in process:
            assert isinstance(event, ProcessOutput)
            port = int(event.data)
            break
        for size in (3, 2_000_000):
            async with guest.open_port(port) as connection:
                await connection.send(bytes(size - 3) + b"end")
                await connection.send_eof()
                answer = b""
                while piece := await connection.receive():
                    answer += piece
            assert answer == b"%d end" % size
    while await guest.list_processes():  # noqa: ASYNC110  the agent tells nobody
        await anyio.sleep(0.01)
    with pytest.raises(UnsupportedError, match="nobody listens"):
        async with guest.open_port(port):
            pass
