"""The connection that a client keeps for its next request: when it is used again, and when never."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import h11
import msgspec
import pytest
from anyio.from_thread import start_blocking_portal

from mayfly import AsyncSandbox
from mayfly.client import http, kept
from mayfly.client.address import NodeAddress
from mayfly.client.blocking import call
from mayfly.client.core import NodeClient
from mayfly.client.kept import Kept
from mayfly.errors import NodeLostError, NodeUnavailableError, NotFoundError
from mayfly.testing.scripted_guest import BareLauncher, ScriptedGuest
from mayfly.testing.service import open_service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from anyio.abc import SocketStream

pytestmark = pytest.mark.anyio


class Node:
    """Answers each request with its path, and does what the path says besides."""

    def __init__(self, socket: Path) -> None:
        self.address = NodeAddress(unix_socket=socket)
        self.client = NodeClient(self.address, kept=Kept())
        self.connections = 0
        self.open = 0
        self.asked: list[str] = []
        self.hang_up: anyio.Event | None = None

    async def ask(self, path: str, method: str = "GET") -> str:
        body = {"a": 1} if method == "POST" else None
        return str(await self.client.ask(method, path, body, into=str))

    async def all_closed(self) -> None:
        with anyio.fail_after(10):
            while self.open:  # noqa: ASYNC110 - the other side is what is looked at
                await anyio.sleep(0.005)

    async def serve(self, stream: SocketStream) -> None:
        self.connections += 1
        self.open += 1
        try:
            async with stream:
                await self._serve(stream, h11.Connection(h11.SERVER))
        except (anyio.BrokenResourceError, anyio.EndOfStream, h11.RemoteProtocolError):
            pass
        finally:
            self.open -= 1

    async def _serve(self, stream: SocketStream, connection: h11.Connection) -> None:
        while True:
            path = await _request(stream, connection)
            if path is None:
                return
            self.asked.append(path)
            if path == "/silent":
                await anyio.sleep_forever()
            if path == "/vanish":
                return
            body = msgspec.json.encode(path)
            promised = len(body) + (10 if path == "/half" else 0)
            status = 404 if path == "/missing" else 200
            ending = [("Connection", "close")] if path == "/last" else []
            head = h11.Response(status_code=status, headers=[("Content-Length", str(promised)), *ending])
            await stream.send((connection.send(head) or b"") + (connection.send(h11.Data(data=body)) or b""))
            if path == "/half":
                await anyio.sleep_forever()
            connection.send(h11.EndOfMessage())
            if path == "/once":
                await self._pause()
                return
            if path == "/last":
                return
            connection.start_next_cycle()

    async def _pause(self) -> None:
        if self.hang_up is not None:
            await self.hang_up.wait()


async def _request(stream: SocketStream, connection: h11.Connection) -> str | None:
    path = None
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await stream.receive())
        elif isinstance(event, h11.Request):
            path = event.target.decode()
        elif isinstance(event, h11.EndOfMessage):
            return path
        elif isinstance(event, h11.ConnectionClosed):
            return None


@asynccontextmanager
async def served(directory: Path) -> AsyncIterator[Node]:
    node = Node(directory / "n")
    async with await anyio.create_unix_listener(directory / "n") as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, node.serve)
        yield node
        tasks.cancel_scope.cancel()


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    async with served(tmp_path) as node:
        yield node


async def test_requests_one_after_the_other_share_a_connection(node: Node) -> None:
    assert [await node.ask(f"/{n}", "POST" if n % 2 else "GET") for n in range(6)] == [f"/{n}" for n in range(6)]
    assert node.connections == 1


async def test_a_refusal_that_was_read_leaves_the_connection_good(node: Node) -> None:
    for _ in range(3):
        with pytest.raises(NotFoundError):
            await node.ask("/missing")
    assert node.connections == 1


async def test_requests_at_the_same_time_have_connections_of_their_own_and_one_is_kept(node: Node) -> None:
    answers: dict[int, str] = {}

    async def ask(number: int) -> None:
        answers[number] = await node.ask(f"/{number}")

    for _ in range(3):
        async with anyio.create_task_group() as tasks:
            for number in range(8):
                tasks.start_soon(ask, number)
        assert answers == {number: f"/{number}" for number in range(8)}
    with anyio.fail_after(10):
        while node.open > 1:  # noqa: ASYNC110
            await anyio.sleep(0.005)


async def test_an_answer_that_was_not_read_to_its_end_is_nobody_elses(node: Node) -> None:
    await node.ask("/first")
    async with node.client.open("GET", "/half") as answer:
        async for _ in answer.chunks(deadline_s=5):
            break
    assert await node.ask("/next") == "/next"
    async with node.client.open("GET", "/unread"):
        pass
    assert [await node.ask(path) for path in ("/a", "/b")] == ["/a", "/b"]
    assert node.connections == 3


@pytest.mark.parametrize("path", ["/silent", "/half"])
async def test_a_cancelled_request_takes_its_connection_with_it(node: Node, path: str) -> None:
    await node.ask("/first")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(node.ask, path)
        while path not in node.asked:  # noqa: ASYNC110
            await anyio.sleep(0.005)
        tasks.cancel_scope.cancel()
    assert await node.ask("/next") == "/next"
    assert (node.connections, node.asked) == (2, ["/first", path, "/next"])


async def test_a_connection_that_the_node_closed_while_idle_is_replaced(node: Node) -> None:
    for method in ("GET", "POST"):
        assert await node.ask("/once") == "/once"
        await node.all_closed()
        assert await node.ask("/next", method) == "/next"
    assert node.asked == ["/once", "/next", "/once", "/next"]


async def test_a_connection_that_is_closed_as_it_is_used_is_replaced_and_nothing_asked_twice(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node closes between the look at the connection and the request, or with the request unread."""
    node.hang_up = anyio.Event()
    assert await node.ask("/once") == "/once"
    monkeypatch.setattr(kept.UnixStream, "is_quiet", lambda _: True)
    node.hang_up.set()
    await node.all_closed()
    assert await node.ask("/next", "POST") == "/next"
    monkeypatch.undo()
    node.hang_up = anyio.Event()
    assert await node.ask("/once") == "/once"
    send = kept.UnixStream.send

    async def closed_after(stream: Any, item: bytes, **options: Any) -> None:
        await send(stream, item, **options)
        if node.hang_up is not None:
            node.hang_up.set()

    monkeypatch.setattr(kept.UnixStream, "send", closed_after)
    assert await node.ask("/again", "POST") == "/again"
    assert node.asked == ["/once", "/next", "/once", "/again"]


async def test_a_request_that_was_taken_is_not_sent_again(node: Node) -> None:
    await node.ask("/first")
    for method in ("GET", "POST"):
        with pytest.raises(NodeLostError):
            await node.ask("/vanish", method)
    assert node.asked == ["/first", "/vanish", "/vanish"]


async def test_a_node_that_says_that_it_closes_is_believed(node: Node) -> None:
    for _ in range(2):
        assert await node.ask("/last") == "/last"
    assert node.connections == 2


async def test_a_node_that_has_gone_is_told_as_before(tmp_path: Path) -> None:
    async with served(tmp_path) as node:
        await node.ask("/first")
    with pytest.raises(NodeUnavailableError):
        await node.ask("/next")
    (tmp_path / "n").unlink(missing_ok=True)
    async with served(tmp_path) as other:  # a node that was started again is found by the same client
        assert await node.ask("/next") == "/next"
        assert other.asked == ["/next"]


async def test_an_idle_connection_is_closed_after_a_while(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "_IDLE_S", 0.02)
    await node.ask("/first")
    await node.all_closed()
    assert await node.ask("/next") == "/next"


def test_each_event_loop_has_its_own(tmp_path: Path) -> None:
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(served(tmp_path)) as node:
        for number in range(3):
            assert anyio.run(node.ask, f"/{number}") == f"/{number}"
        assert node.connections == 3
        node.client = NodeClient(node.address)
        gc.collect()  # a connection that nobody closed makes no noise
        portal.call(node.all_closed)


def test_threads_get_their_own_answers(tmp_path: Path) -> None:
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(served(tmp_path)) as node:

        def ask(number: int) -> list[str]:
            return [call(partial(node.ask, f"/{number}/{turn}")) for turn in range(20)]

        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(ask, range(8)))
    assert found == [[f"/{number}/{turn}" for turn in range(20)] for number in range(8)]


FORKS = """
import os, sys
from functools import partial
from pathlib import Path
from mayfly.client.address import NodeAddress
from mayfly.client.blocking import call
from mayfly.client.core import NodeClient
from mayfly.client.kept import Kept
client = NodeClient(NodeAddress(unix_socket=Path(sys.argv[1])), kept=Kept())
def ask(path):
    assert call(partial(client.ask, "GET", path, into=str)) == path
ask("/before")
child = os.fork()
if child == 0:
    ask("/child")
    ask("/child/again")
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
ask("/after")
"""


def test_a_forked_child_leaves_its_parents_connection_alone(tmp_path: Path) -> None:
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(served(tmp_path)) as node:
        script = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKS, str(tmp_path / "n")]
        done = subprocess.run(script, capture_output=True, timeout=60, check=False, env=dict(os.environ))
        assert (done.returncode, done.stderr) == (0, b"")
        assert node.asked == ["/before", "/child", "/child/again", "/after"]
        assert node.connections == 2


# -- a sandbox ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def connects(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    made: list[object] = []
    connect: Callable[..., Any] = http.connect

    async def counted(address: NodeAddress) -> Any:
        made.append(address)
        return await connect(address)

    monkeypatch.setattr(http, "connect", counted)
    return made


async def test_a_sandbox_asks_all_over_one_connection_and_lets_go_of_it(
    tmp_path: Path, connects: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAYFLY_HOME", str(tmp_path / "state"))
    guest_of: Any = ScriptedGuest
    async with (
        open_service(tmp_path, launcher=BareLauncher(tmp_path), guest_of=guest_of) as service,
        await AsyncSandbox.create(node=service.address) as sandbox,
    ):
        before = len(connects)
        for number in range(5):
            assert (await sandbox.run_code(f"out hello\nresult {number}")).text == str(number)
            assert (await sandbox.info()).state == "running"
        assert len(connects) == before + 1
        await sandbox.close()
        assert (await sandbox.run_code("result 1")).text == "1"
        assert len(connects) == before + 2
        again = await AsyncSandbox.connect(sandbox.id, node=service.address)
        assert await again.kill()
        assert (await sandbox.info()).state == "ended"
