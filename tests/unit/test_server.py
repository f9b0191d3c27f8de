"""The HTTP application over a scripted node, through real sockets."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mayfly.client.address import NodeAddress
from mayfly.client.core import NodeClient
from mayfly.client.http import open_exchange
from mayfly.errors import CapacityError, HostError
from mayfly.server.run import serve
from mayfly.testing.nodes import ScriptedNode, open_server, serve_in_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

JSON = {"Content-Type": "application/json"}


pytestmark = pytest.mark.anyio


class Asking:
    def __init__(self, address: NodeAddress) -> None:
        self.address = address

    async def __call__(
        self, method: str, target: str, body: Any = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, Any, dict[str, str]]:
        content = body if isinstance(body, bytes) else msgspec.json.encode(body)
        fields = headers if headers is not None else (JSON if method == "POST" else {})
        exchange = open_exchange(self.address, method, target, headers=fields, content=content, deadline_s=10)
        async with exchange as answer:
            raw = await answer.read(limit_bytes=10_000_000, deadline_s=10)
            return answer.status, (msgspec.json.decode(raw) if raw else None), dict(answer.headers)

    async def lines(self, body: Any, target: str = "/v1/executions?stream=true") -> list[dict[str, Any]]:
        exchange = open_exchange(
            self.address, "POST", target, headers=JSON, content=msgspec.json.encode(body), deadline_s=10
        )
        async with exchange as answer:
            assert answer.headers["content-type"] == "application/x-ndjson"
            return [msgspec.json.decode(line) async for line in answer.lines(limit_bytes=1_000_000, deadline_s=10)]


@pytest.fixture
def node() -> ScriptedNode:
    return ScriptedNode()


@pytest.fixture
async def ask(node: ScriptedNode, tmp_path: Path) -> Any:
    path = tmp_path / "s"
    async with open_server(node, unix_socket=path):
        yield Asking(NodeAddress(unix_socket=path))


async def test_an_execution_is_answered_with_its_result_and_found_again(ask: Asking) -> None:
    status, execution, _ = await ask("POST", "/v1/executions", {"code": "out hello\nexit 3"})
    assert status == 200
    assert (execution["status"], execution["exit_code"], execution["stdout"]) == ("failed", 3, "hello\n")
    status, again, _ = await ask("GET", f"/v1/executions/{execution['id']}")
    assert (status, again) == (200, execution)


async def test_a_stream_sends_each_event_as_a_line_and_ends_with_the_result(ask: Asking) -> None:
    events = await ask.lines({"code": "out one\nerr two\nhex ff"})
    assert [event["event"] for event in events] == ["accepted", "stage", "output", "output", "output", "finished"]
    assert events[2] == {"event": "output", "stream": "stdout", "text": "one\n"}
    assert events[4] == {"event": "output", "stream": "stdout", "base64": "/w=="}
    assert events[-1]["execution"]["stderr"] == "two\n"


async def test_the_accept_header_asks_for_a_stream_too(ask: Asking) -> None:
    headers = JSON | {"Accept": "application/x-ndjson"}
    exchange = open_exchange(
        ask.address, "POST", "/v1/executions", headers=headers, content=b'{"code":""}', deadline_s=10
    )
    async with exchange as answer:
        assert answer.headers["content-type"] == "application/x-ndjson"


async def test_output_arrives_while_the_program_still_runs(ask: Asking, node: ScriptedNode) -> None:
    exchange = open_exchange(
        ask.address,
        "POST",
        "/v1/executions?stream=true",
        headers=JSON,
        content=msgspec.json.encode({"code": "out early\nsleep 60"}),
        deadline_s=10,
    )
    async with exchange as answer:
        async for line in answer.lines(limit_bytes=10_000, deadline_s=10):
            if b"early" in line:
                break
    await _until(lambda: bool(node.cancelled))


async def test_a_client_that_goes_away_ends_its_unstreamed_execution(ask: Asking, node: ScriptedNode) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(ask, "POST", "/v1/executions", {"code": "sleep 60"})
        await _until(lambda: bool(node.requests))
        group.cancel_scope.cancel()
    await _until(lambda: bool(node.cancelled))


async def test_a_slow_reader_holds_up_its_own_program_only(ask: Asking, node: ScriptedNode) -> None:
    body = msgspec.json.encode({"code": "flood 1000"})
    exchange = open_exchange(
        ask.address, "POST", "/v1/executions?stream=true", headers=JSON, content=body, deadline_s=10
    )
    async with exchange:
        with anyio.fail_after(20):
            before = -1
            while before != node.written_events or before == 0:
                before = node.written_events
                await anyio.sleep(0.2)
        stalled_at = node.written_events
        assert stalled_at < 100, "the node produced far ahead of a reader that takes nothing"
        status, execution, _ = await ask("POST", "/v1/executions", {"code": "out still here"})
        assert (status, execution["stdout"]) == (200, "still here\n")


async def test_standard_input_streams_into_a_running_program(ask: Asking) -> None:
    gate = anyio.Event()
    seen: list[str] = []

    async def pieces() -> Any:
        yield b"first "
        await gate.wait()
        yield b"second"

    async def feed(execution_id: str) -> None:
        exchange = open_exchange(
            ask.address, "POST", f"/v1/executions/{execution_id}/stdin", content=pieces(), deadline_s=10
        )
        async with exchange as answer:
            assert answer.status == 204

    exchange = open_exchange(
        ask.address,
        "POST",
        "/v1/executions?stream=true",
        headers=JSON,
        content=msgspec.json.encode({"code": "echo", "stdin_stream": True}),
        deadline_s=10,
    )
    async with anyio.create_task_group() as tasks, exchange as answer:
        async for line in answer.lines(limit_bytes=100_000, deadline_s=10):
            event = msgspec.json.decode(line)
            if event["event"] == "accepted":
                tasks.start_soon(feed, event["id"])
            if event["event"] == "output":
                seen.append(event["text"])
                gate.set()
            if event["event"] == "finished":
                assert event["execution"]["stdout"] == "first second"
    assert seen == ["first ", "second"]


async def test_eof_false_keeps_the_input_open_for_more(ask: Asking) -> None:
    async def feed(execution_id: str) -> None:
        target = f"/v1/executions/{execution_id}/stdin"
        assert (await ask("POST", f"{target}?eof=false", b"a"))[0] == 204
        assert (await ask("POST", target, b"b"))[0] == 204

    exchange = open_exchange(
        ask.address,
        "POST",
        "/v1/executions?stream=true",
        headers=JSON,
        content=msgspec.json.encode({"code": "echo", "stdin_stream": True}),
        deadline_s=10,
    )
    async with anyio.create_task_group() as tasks, exchange as answer:
        async for line in answer.lines(limit_bytes=100_000, deadline_s=10):
            event = msgspec.json.decode(line)
            if event["event"] == "accepted":
                tasks.start_soon(feed, event["id"])
            if event["event"] == "finished":
                assert event["execution"]["stdout"] == "ab"


async def test_input_for_a_program_that_ended_is_not_found(ask: Asking) -> None:
    events = await ask.lines({"code": ""})
    status, answer, _ = await ask("POST", f"/v1/executions/{events[0]['id']}/stdin", b"late")
    assert (status, answer["error"]["code"]) == (404, "not_found")


async def test_input_that_is_being_sent_when_the_program_ends_is_let_go(ask: Asking) -> None:
    async def endless() -> Any:
        while True:
            yield b"x" * 1000
            await anyio.sleep(0.01)

    async def feed(execution_id: str, statuses: list[int]) -> None:
        target = f"/v1/executions/{execution_id}/stdin"
        async with open_exchange(ask.address, "POST", target, content=endless(), deadline_s=10) as answer:
            statuses.append(answer.status)

    statuses: list[int] = []
    exchange = open_exchange(
        ask.address,
        "POST",
        "/v1/executions?stream=true",
        headers=JSON,
        content=msgspec.json.encode({"code": "sleep 0.2", "stdin_stream": True}),
        deadline_s=10,
    )
    async with anyio.create_task_group() as tasks, exchange as answer:
        async for line in answer.lines(limit_bytes=100_000, deadline_s=10):
            event = msgspec.json.decode(line)
            if event["event"] == "accepted":
                tasks.start_soon(feed, event["id"], statuses)
    assert statuses == [404]


class Refused(NamedTuple):
    request: str
    body: Any
    status: int
    code: str
    field: str | None = None
    headers: dict[str, str] | None = None


POST = "POST /v1/executions"
REFUSALS = {
    "no code": Refused(POST, {}, 400, "invalid_request", "code"),
    "timeout 0": Refused(POST, {"code": "", "limits": {"timeout_s": 0}}, 400, "invalid_request", "limits.timeout_s"),
    "1 TiB": Refused(POST, {"code": "", "limits": {"mem_mib": 1 << 20}}, 400, "invalid_request", "limits.mem_mib"),
    "unknown field": Refused(POST, {"code": "", "limit": {}}, 400, "invalid_request", "limit"),
    "unknown language": Refused(POST, {"code": "", "lang": "ruby"}, 400, "invalid_request", "lang"),
    "not JSON": Refused(POST, b"{", 400, "invalid_request", "body"),
    "not UTF-8": Refused(POST, b'{"code":"\xff"}', 400, "invalid_request", "body"),
    "not an object": Refused(POST, b"[1]", 400, "invalid_request"),
    "code over 256 KiB": Refused(POST, {"code": "x" * 262145}, 400, "invalid_request", "code"),
    "body over 2 MiB": Refused(POST, b" " * (2 * 1024 * 1024 + 1), 413, "invalid_request", "body"),
    "wrong type": Refused(POST, b"{}", 415, "invalid_request", "content-type", {"Content-Type": "text/plain"}),
    "no type": Refused(POST, b"{}", 415, "invalid_request", "content-type", {}),
    "stream maybe": Refused(f"{POST}?stream=maybe", {"code": ""}, 400, "invalid_request", "stream"),
    "stdin_stream alone": Refused(POST, {"code": "", "stdin_stream": True}, 400, "invalid_request", "stdin_stream"),
    "NUL in an argument": Refused(POST, {"code": "", "args": ["\0"]}, 400, "invalid_request", "args[0]"),
    "wrong method": Refused("DELETE /v1/executions", b"", 405, "invalid_request", "method"),
    "unknown path": Refused("GET /v1/nothing", b"", 404, "not_found"),
    "unknown execution": Refused("GET /v1/executions/ex-none", b"", 404, "not_found", "id"),
    "path that climbs": Refused("GET /v1/executions/..%2f..%2fetc", b"", 404, "not_found"),
    "full node": Refused(POST, {"code": "refuse capacity"}, 503, "capacity"),
    "failing node": Refused(POST, {"code": "fail vmm"}, 500, "vmm"),
    "crashing node": Refused(POST, {"code": "crash"}, 500, "internal"),
}


@pytest.mark.parametrize("case", REFUSALS.values(), ids=REFUSALS)
async def test_what_is_wrong_is_answered_with_a_typed_error(ask: Asking, case: Refused) -> None:
    method, _, target = case.request.partition(" ")
    status, answer, fields = await ask(method, target, case.body, case.headers)
    assert status == case.status, answer
    assert answer["error"]["code"] == case.code
    assert answer["error"].get("field") == case.field
    assert "Traceback" not in answer["error"]["message"]
    if status == 503:
        assert fields["retry-after"] == "3"
    assert (await ask("GET", "/healthz"))[0] == 200


async def test_a_refusal_before_acceptance_is_an_ordinary_answer_of_a_stream_too(ask: Asking) -> None:
    status, answer, fields = await ask("POST", "/v1/executions?stream=true", {"code": "refuse capacity"})
    assert (status, answer["error"]["code"], fields["retry-after"]) == (503, "capacity", "3")


async def test_a_body_without_length_is_bounded_while_it_is_read(ask: Asking) -> None:
    async def pieces() -> Any:
        for _ in range(100):
            yield b" " * 65536

    exchange = open_exchange(ask.address, "POST", "/v1/executions", headers=JSON, content=pieces(), deadline_s=10)
    async with exchange as answer:
        assert answer.status == 413


@pytest.mark.parametrize("given", ["a declared length", "a head that is no HTTP"])
async def test_an_answer_before_the_requests_end_arrives_whole(node: ScriptedNode, given: str) -> None:
    head = (
        b"POST /v1/executions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 16777216\r\n\r\n"
    )
    start, status = (head, b"413") if given == "a declared length" else (b"?" * 40_000, b"400")

    def ask(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(start + b" " * (16 << 20))
            connection.shutdown(socket.SHUT_WR)
            answer = b""
            while data := connection.recv(65536):
                answer += data
            return answer

    async with open_server(node, tcp=True) as bound:
        assert bound.tcp is not None
        for _ in range(5):
            answer = await anyio.to_thread.run_sync(ask, bound.tcp[1])
            assert answer.startswith(b"HTTP/1.1 " + status)
            assert b"2 MiB" in answer if status == b"413" else answer.endswith(b"received.")


async def test_who_sends_on_after_a_refusal_is_cut_off_in_the_end(
    node: ScriptedNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mayfly.server.connection._LINGER_S", 0.2)
    async with open_server(node, tcp=True) as bound:
        assert bound.tcp is not None
        async with await anyio.connect_tcp("127.0.0.1", bound.tcp[1]) as connection:

            async def send_on() -> None:
                while True:
                    await connection.send(b"?" * 65536)
                    await anyio.sleep(0.001)

            with anyio.fail_after(10), pytest.raises(anyio.BrokenResourceError):
                await send_on()


@pytest.mark.parametrize("code", ["fail vmm", "crash"])
async def test_a_failure_in_a_stream_cuts_it_off_visibly(ask: Asking, code: str) -> None:
    from mayfly.errors import NodeLostError

    with pytest.raises(NodeLostError):
        await ask.lines({"code": f"out x\n{code}"})


async def test_tcp_needs_the_token_and_the_unix_socket_does_not(node: ScriptedNode, tmp_path: Path) -> None:
    async with open_server(node, unix_socket=tmp_path / "s", tcp=True, token="secret") as bound:
        assert bound.tcp is not None
        ask_tcp = Asking(NodeAddress(host="127.0.0.1", port=bound.tcp[1]))
        for given in (None, "Bearer wrong", "Basic secret", "secret", "Bearer secret2", "Bearer"):
            status, answer, fields = await ask_tcp("GET", "/v1/host", headers={"Authorization": given} if given else {})
            assert (status, answer["error"]["code"]) == (401, "unauthorized"), given
            assert fields["www-authenticate"] == "Bearer"
        assert (await ask_tcp("GET", "/v1/host", headers={"Authorization": "Bearer secret"}))[0] == 200
        assert (await ask_tcp("GET", "/healthz", headers={}))[1] == {"status": "ok", "version": "0.1.0", "api": 1}
        full = (await ask_tcp("GET", "/healthz", headers={"authorization": "bearer secret"}))[1]
        assert full["code_hash"] == "scripted"
        assert (await Asking(NodeAddress(unix_socket=tmp_path / "s"))("GET", "/v1/host"))[0] == 200


async def test_a_forwarded_for_header_does_not_pass_for_the_unix_socket(node: ScriptedNode) -> None:
    async with open_server(node, tcp=True, token="secret") as bound:
        assert bound.tcp is not None
        ask = Asking(NodeAddress(host="127.0.0.1", port=bound.tcp[1]))
        status, _, _ = await ask("GET", "/v1/host", headers={"X-Forwarded-For": "", "Forwarded": "for=unix:"})
        assert status == 401


async def test_the_unix_socket_has_its_mode_and_is_gone_afterwards(node: ScriptedNode, tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with open_server(node, unix_socket=path):
        mode = path.stat().st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o600
    assert not path.exists()


async def test_a_group_may_be_given_the_socket(node: ScriptedNode, tmp_path: Path) -> None:
    from mayfly.server.app import create_app

    groups = [os.getgid(), *os.getgroups(), *((12345,) if os.geteuid() == 0 else ())]
    path, ready = tmp_path / "s", anyio.Event()
    work = partial(
        serve,
        create_app(node, token=None),
        unix_socket=path,
        socket_mode=0o660,
        socket_gid=groups[-1],
        on_ready=lambda _: ready.set(),
    )
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(work)
        await ready.wait()
        assert (stat.S_IMODE(path.stat().st_mode), path.stat().st_gid) == (0o660, groups[-1])
        tasks.cancel_scope.cancel()


async def test_a_stale_socket_is_replaced_and_a_live_one_is_not(node: ScriptedNode, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with open_server(node, unix_socket=path):
        with pytest.raises(HostError, match="another node"):
            await serve(None, unix_socket=path)  # type: ignore[arg-type]
        assert (await Asking(NodeAddress(unix_socket=path))("GET", "/healthz"))[0] == 200


async def test_a_file_in_the_socket_s_place_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_text("mine")
    with pytest.raises(HostError, match="no socket"):
        await serve(None, unix_socket=path)  # type: ignore[arg-type]
    assert path.read_text() == "mine"


async def test_a_socket_path_longer_than_an_address_works(node: ScriptedNode, tmp_path: Path) -> None:
    directory = tmp_path / ("d" * 120)
    directory.mkdir()
    async with open_server(node, unix_socket=directory / "node.sock"):
        assert (await Asking(NodeAddress(unix_socket=directory / "node.sock"))("GET", "/healthz"))[0] == 200


async def test_stopping_lets_a_running_program_end_and_then_refuses(node: ScriptedNode, tmp_path: Path) -> None:
    from mayfly.server.app import create_app

    path = tmp_path / "s"
    stop, ready = anyio.Event(), anyio.Event()
    work = partial(
        serve,
        create_app(node, token=None),
        unix_socket=path,
        stop=stop,
        on_ready=lambda _: ready.set(),
    )
    results: list[Any] = []

    async def long_run() -> None:
        results.append(await Asking(NodeAddress(unix_socket=path))("POST", "/v1/executions", {"code": "sleep 0.3"}))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(work)
        await ready.wait()
        tasks.start_soon(long_run)
        await _until(lambda: len(node.requests) == 1)
        stop.set()
        await _until(lambda: not path.exists())
    assert results[0][0] == 200
    assert not node.cancelled


async def test_cancelling_the_server_ends_executions_before_it_returns(node: ScriptedNode, tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with anyio.create_task_group() as tasks:
        async with open_server(node, unix_socket=path):

            async def doomed() -> None:
                asking = Asking(NodeAddress(unix_socket=path))
                status, answer, _ = await asking("POST", "/v1/executions", {"code": "sleep 60"})
                assert (status, answer["error"]["code"]) == (503, "node_lost")

            tasks.start_soon(doomed)
            await _until(lambda: len(node.requests) == 1)
        assert node.cancelled


async def test_garbage_on_the_socket_is_answered_and_closed(ask: Asking) -> None:
    assert ask.address.unix_socket is not None
    for garbage in (b"\0" * 100, b"GET\r\n\r\n", b"POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n", b"A" * 100_000):
        async with await anyio.connect_unix(str(ask.address.unix_socket)) as stream:
            with anyio.fail_after(10):
                try:
                    await stream.send(garbage)
                    received = b""
                    while True:
                        received += await stream.receive()
                except (anyio.EndOfStream, anyio.BrokenResourceError):
                    pass
            assert received.startswith((b"HTTP/1.1 400", b"HTTP/1.1 431")) or not received
    assert (await ask("GET", "/healthz"))[0] == 200


async def test_a_connection_that_asks_nothing_is_closed(
    node: ScriptedNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mayfly.server.connection._REQUEST_HEAD_S", 0.1)
    async with (
        open_server(node, unix_socket=tmp_path / "s"),
        await anyio.connect_unix(str(tmp_path / "s")) as idle,
        await anyio.connect_unix(str(tmp_path / "s")) as dripping,
    ):
        await dripping.send(b"GET /healthz HT")
        with anyio.fail_after(10):
            for stream in (idle, dripping):
                with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                    await stream.receive()


async def test_a_reader_that_takes_nothing_for_too_long_is_dropped_with_its_program(
    ask: Asking, node: ScriptedNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mayfly.server.stream._STALL_S", 0.3)
    body = msgspec.json.encode({"code": "flood 1000"})
    exchange = open_exchange(
        ask.address, "POST", "/v1/executions?stream=true", headers=JSON, content=body, deadline_s=10
    )
    async with exchange:
        await _until(lambda: bool(node.cancelled))


async def test_a_body_that_does_not_come_is_given_up(ask: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mayfly.server.body._TOTAL_S", 0.2)

    async def dripping() -> Any:
        while True:
            yield b" "
            await anyio.sleep(0.05)

    exchange = open_exchange(ask.address, "POST", "/v1/executions", headers=JSON, content=dripping(), deadline_s=10)
    async with exchange as answer:
        assert answer.status == 408


async def test_more_connections_than_the_server_takes_are_refused_and_it_recovers(
    node: ScriptedNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mayfly.server.run._CONNECTIONS_MAX", 4)
    async with open_server(node, unix_socket=tmp_path / "s"):
        address = NodeAddress(unix_socket=tmp_path / "s")
        async with contextlib.AsyncExitStack() as held:
            for _ in range(4):
                await held.enter_async_context(await anyio.connect_unix(str(tmp_path / "s")))
            async with open_exchange(address, "GET", "/healthz", deadline_s=10) as answer:
                assert answer.status == 503
            with pytest.raises(CapacityError):
                await NodeClient(address).host()

        async def answers() -> bool:
            async with open_exchange(address, "GET", "/healthz", deadline_s=10) as answer:
                return answer.status == 200

        with anyio.fail_after(10):
            while not await answers():  # noqa: ASYNC110 - the server frees places by itself
                await anyio.sleep(0.01)


@given(
    st.lists(st.binary(max_size=300), max_size=4),
    st.sampled_from(
        [b"", b"POST /v1/executions HTTP/1.1\r\n", b"GET /v1/executions/", b"PUT * HTTP/1.1\r\nHost: x\r\n"]
    ),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bytes_on_the_socket_stop_the_server(threaded: NodeAddress, pieces: list[bytes], start: bytes) -> None:
    assert threaded.unix_socket is not None
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        connection.connect(str(threaded.unix_socket))
        with contextlib.suppress(OSError):
            for piece in (start, *pieces):
                connection.sendall(piece)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass
    assert anyio.run(NodeClient(threaded).health)["status"] == "ok"


@pytest.fixture(scope="module")
def threaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeAddress]:
    path = tmp_path_factory.mktemp("server") / "s"
    with serve_in_thread(ScriptedNode(), unix_socket=path):
        yield NodeAddress(unix_socket=path)


async def _until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(10):
        while not condition():  # noqa: ASYNC110 - the other side is a plain object
            await anyio.sleep(0.01)
