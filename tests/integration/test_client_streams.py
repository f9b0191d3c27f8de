"""Terminals, ports and runs of the client, before a node of fake machines; and sockets that misbehave."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mayfly import AsyncSandbox, Sandbox
from mayfly.client.address import NodeAddress
from mayfly.client.websocket import open_websocket
from mayfly.errors import (
    InvalidRequestError,
    MayflyError,
    NodeError,
    NodeLostError,
    NodeUnavailableError,
    NotFoundError,
    SandboxEndedError,
)
from mayfly.host.eventloop import open_portal
from mayfly.testing.service import open_service

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(120)

ECHO = """
import socket, sys
listener = socket.socket()
listener.bind(("127.0.0.1", 0))
listener.listen()
print(listener.getsockname()[1], flush=True)
while True:
    connection, _ = listener.accept()
    said = b""
    while data := connection.recv(65536):
        said += data
    connection.sendall(said[::-1])
    connection.close()
"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("n")
    with (
        open_portal() as portal,
        portal.wrap_async_context_manager(open_service(directory)) as service,
    ):
        yield service.address


@pytest.fixture(scope="module")
def sandbox(address: str) -> Iterator[Sandbox]:
    with Sandbox(node=address) as sandbox:
        yield sandbox


def test_a_terminal_is_typed_into_resized_and_ended(sandbox: Sandbox) -> None:
    with sandbox.pty.open(["/bin/bash", "--norc"], cols=90, rows=20) as terminal:
        terminal.resize(100, 30)
        terminal.send("stty size; exit 3\n")
        shown = b"".join(terminal)
        assert terminal.end is not None
    assert b"30 100" in shown
    assert terminal.end.exit_code == 3


def test_leaving_a_terminal_ends_its_process_and_connecting_finds_one(sandbox: Sandbox) -> None:
    with sandbox.pty.open(["sleep", "600"]) as terminal:
        pid = terminal.pid
    assert sandbox.commands.connect(pid).wait().signal == "SIGKILL"
    pid = sandbox.pty.start("echo here; cat")
    for _ in range(2):  # what was shown is shown again
        with sandbox.pty.connect(pid) as terminal:
            shown = b""
            while b"here" not in shown:
                shown += terminal.receive() or pytest.fail("it ended")
    assert sandbox.commands.kill(pid)


def test_a_port_is_reached_by_several_at_once_also_with_half_closed_connections(sandbox: Sandbox) -> None:
    server = sandbox.commands.run(["python3", "-c", ECHO], background=True)
    with sandbox.expose(_port(server)) as forward:
        for said in (b"abc", b"x" * 1_000_000):
            with socket.create_connection((forward.host, forward.port), timeout=30) as connection:
                connection.sendall(said)
                connection.shutdown(socket.SHUT_WR)
                back = b""
                while data := connection.recv(65536):
                    back += data
            assert back == said[::-1]
        assert str(forward) == f"http://127.0.0.1:{forward.port}"
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((forward.host, forward.port), timeout=5)
    server.kill()


def _port(server: Any) -> int:
    heard: list[str] = []
    for event in server.events():
        heard.append(getattr(event, "text", None) or "")
        if "\n" in "".join(heard):
            return int("".join(heard))
    pytest.fail("it said no port")


def test_a_port_where_nothing_listens_closes_the_connection(sandbox: Sandbox) -> None:
    with sandbox.expose(9) as forward, socket.create_connection((forward.host, forward.port), timeout=30) as connection:
        assert connection.recv(10) == b""


@pytest.mark.parametrize("port", [0, 65536, "80"])
def test_an_impossible_port_is_refused(sandbox: Sandbox, port: Any) -> None:
    with pytest.raises(InvalidRequestError, match="port"):
        sandbox.expose(port)


def test_a_local_port_that_is_taken_is_named(sandbox: Sandbox) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(NodeError, match="cannot listen"):
        sandbox.expose(80, local_port=taken.getsockname()[1])


@pytest.mark.anyio
async def test_the_asynchronous_face_exposes_ports_and_opens_terminals_too(address: str) -> None:
    async with AsyncSandbox(node=address) as sandbox:
        async with sandbox.pty.open(["echo", "shown"]) as terminal:
            assert b"shown" in b"".join([data async for data in terminal])
        forward = await sandbox.expose(9)
        async with await anyio.connect_tcp(forward.host, forward.port) as stream:
            with pytest.raises(anyio.EndOfStream):
                await stream.receive()
    with pytest.raises(OSError, match="attempts failed"):
        await anyio.connect_tcp(forward.host, forward.port)


def test_a_file_is_streamed_from_one_sandbox_to_another(address: str, sandbox: Sandbox, tmp_path: Path) -> None:
    content = bytes(range(256)) * 10_000
    sandbox.files.write("from", content)
    (tmp_path / "f").write_bytes(b"x")
    states: list[str] = []
    with Sandbox(node=address) as other:
        other.files.write("to", sandbox.files.stream("from"))
        assert other.files.read("to", format="bytes") == content
        other.files.upload(tmp_path / "f", on_file=lambda _: states.append(other.info().state))
    assert states == ["running"]


def test_two_threads_may_use_one_sandbox_and_their_runs_take_turns(sandbox: Sandbox) -> None:
    sandbox.run_code("count = 0")
    threads = [threading.Thread(target=lambda: [sandbox.run_code("count += 1") for _ in range(5)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sandbox.run_code("count").text == "20"


def test_a_run_is_interrupted_from_another_thread_and_keeps_its_state(sandbox: Sandbox) -> None:
    sandbox.run_code("import time; kept = 5")
    timer = threading.Timer(0.5, sandbox.interrupt)
    timer.start()
    stopped = sandbox.run_code("time.sleep(60)", timeout_s=30)
    timer.join()
    assert (stopped.status, stopped.state_lost) == ("interrupted", False)
    assert sandbox.run_code("kept").text == "5"


@pytest.mark.anyio
async def test_a_cancelled_run_is_interrupted_and_the_context_is_free(address: str) -> None:
    async with AsyncSandbox(node=address) as sandbox:
        with anyio.CancelScope() as scope:
            await sandbox.run_code("print('up'); import time; time.sleep(60)", on_stdout=lambda _: scope.cancel())
        with anyio.fail_after(20):
            assert (await sandbox.run_code("1 + 1")).text == "2"


def test_ctrl_c_interrupts_the_code_and_leaves_the_sandbox(address: str, sandbox: Sandbox) -> None:
    program = (
        "import sys; from mayfly import Sandbox\n"
        "sandbox = Sandbox.connect(sys.argv[1], node=sys.argv[2])\n"
        "sandbox.run_code('y = 1; print(0); import time; time.sleep(60)', on_stdout=lambda _: print('up', flush=True))"
    )
    command = [sys.executable, "-c", program, sandbox.id, address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"up\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == -signal.SIGINT
        assert process.stderr.read().endswith(b"KeyboardInterrupt\n")
    assert sandbox.run_code("y", timeout_s=20).text == "1"


def test_a_program_that_ends_with_everything_open_ends_at_once(address: str) -> None:
    program = (
        "import sys; from mayfly import Sandbox\n"
        "sandbox = Sandbox.create(node=sys.argv[1], idle_timeout_s=5)\n"
        "forward = sandbox.expose(80)\n"
        "command = sandbox.commands.run('while sleep 0.1; do echo x; done', background=True)\n"
        "events = command.events(); next(events)\n"
        "terminal = sandbox.pty.open().__enter__()\n"
        "print(sandbox.id)"
    )
    command = [sys.executable, "-X", "dev", "-c", program, address]
    done = subprocess.run(command, capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stdout[:3], done.stderr) == (0, b"sb-", b"")
    Sandbox.connect(done.stdout.decode().strip(), node=address).kill()


def test_killed_while_it_streams_a_run_ends_with_a_clear_answer(address: str) -> None:
    other = Sandbox.create(node=address)
    timer = threading.Timer(0.5, other.kill)
    timer.start()
    try:
        ended = other.run_code("import time; time.sleep(60)").status
    except SandboxEndedError:
        ended = "error"
    timer.join()
    assert ended in {"error", "context_lost", "interrupted"}
    with pytest.raises(SandboxEndedError):
        other.run_code("1")


def test_a_sandbox_of_nobody_is_not_found(address: str) -> None:
    with pytest.raises(NotFoundError):
        Sandbox.connect("sb-00000000000000000000", node=address)
    with pytest.raises(MayflyError):
        Sandbox.connect("../executions", node=address)


UPGRADED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"


@pytest.mark.anyio
@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\0garbage\r\n\r\n",
        b"HTTP/1.1 101 Hi\r\n\r\n",
        UPGRADED,
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab",
    ],
    ids=lambda answer: repr(answer[:20]),
)
async def test_a_node_that_opens_no_socket_is_a_typed_error(tmp_path: Path, answer: bytes) -> None:
    async with _answering(tmp_path / "n", lambda _: answer) as address:
        with pytest.raises(NodeLostError):
            async with open_websocket(address, "/x"):
                pass


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("frames", "error"),
    [
        (b"\x82\x7f" + (1 << 40).to_bytes(8, "big") + b"x" * 2_000_000, NodeError),
        (b"\x82\x05abc", NodeLostError),
        (b"\xff\xff\xff", NodeLostError),
        (b"\x81\x02\xff\xff", NodeLostError),
    ],
    ids=["endless message", "cut off", "reserved bits", "no UTF-8"],
)
async def test_messages_that_are_none_or_too_large_are_a_typed_error(
    tmp_path: Path, frames: bytes, error: type[Exception]
) -> None:
    async with _answering(tmp_path / "n", lambda request: _accepting(request) + frames) as address:
        with pytest.raises(error):
            await _read_all(address)


async def _read_all(address: NodeAddress) -> None:
    async with open_websocket(address, "/x") as (opened, status, _):
        assert status == 101
        while await opened.receive() is not None:
            pass


@pytest.mark.anyio
async def test_a_node_that_is_not_there_has_no_sockets_either(tmp_path: Path) -> None:
    with pytest.raises(NodeUnavailableError):
        async with open_websocket(NodeAddress(unix_socket=tmp_path / "none"), "/x"):
            pass


def _accepting(request: bytes) -> bytes:
    import base64
    import hashlib

    key = next(line.split(b": ")[1] for line in request.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key"))
    digest = hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()  # noqa: S324 - the protocol's
    return UPGRADED.replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n\r\n")


@contextlib.asynccontextmanager
async def _answering(path: Path, answer: Any) -> Any:
    done = anyio.Event()

    async def serve(stream: Any) -> None:
        async with stream:
            request = await stream.receive()
            with contextlib.suppress(anyio.BrokenResourceError):
                await stream.send(answer(request))
        done.set()

    listener = await anyio.create_unix_listener(path)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        yield NodeAddress(unix_socket=path)
        await done.wait()
        tasks.cancel_scope.cancel()
