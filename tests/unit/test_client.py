"""The Python client against a scripted node behind a real server, and against servers that misbehave."""

from __future__ import annotations

import contextlib
import socket
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mayfly import AsyncRunner, Runner, arun, run
from mayfly.client import discovery
from mayfly.client.address import NodeAddress, parse_address, read_token
from mayfly.client.core import NodeClient
from mayfly.client.text import TextRelay
from mayfly.errors import (
    AuthError,
    CapacityError,
    InvalidRequestError,
    NodeError,
    NodeLostError,
    NodeUnavailableError,
    NodeVersionError,
    NotFoundError,
)
from mayfly.host.code import code_hash
from mayfly.host.paths import StatePaths
from mayfly.model import ExecutionId, ExecutionRequest, Output
from mayfly.testing.nodes import ScriptedNode, open_server, serve_in_thread

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAYFLY_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("MAYFLY_NODE", raising=False)
    monkeypatch.setattr(discovery, "SYSTEM_SOCKET", tmp_path / "system.sock")


@pytest.fixture
def node() -> ScriptedNode:
    return ScriptedNode()


@pytest.fixture
def served(node: ScriptedNode, tmp_path: Path) -> Iterator[str]:
    with serve_in_thread(node, unix_socket=tmp_path / "n"):
        yield f"unix:{tmp_path / 'n'}"


def test_run_returns_what_the_program_wrote_and_how_it_ended(served: str) -> None:
    execution = run("out hello\nerr oops\nexit 4", node=served)
    assert (execution.stdout, execution.stderr, execution.exit_code) == ("hello\n", "oops\n", 4)
    assert not execution.ok
    assert execution.host is not None
    assert execution.host.kind == "fake"


def test_options_reach_the_node_and_absent_ones_come_from_the_configuration(
    served: str, node: ScriptedNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAYFLY_LIMITS_MEM_MIB", "512")
    run("args", lang="bash", timeout_s=5, args=("a", "b"), env={"K": "V"}, stdin="in", policy="strict", node=served)
    request = node.requests[0]
    assert (request.lang, request.limits.timeout_s, request.limits.mem_mib) == ("bash", 5.0, 512)
    assert (request.args, request.env, request.stdin, request.policy) == (["a", "b"], {"K": "V"}, "in", "strict")


def test_given_input_reaches_the_program(served: str) -> None:
    assert run("echo", stdin="ünïcode", node=served).stdout == "ünïcode"


def test_output_is_heard_as_it_comes_and_split_characters_are_joined(served: str) -> None:
    out: list[str] = []
    err: list[str] = []
    execution = run("out a\nhex c3\nhex a9\nerr b", on_stdout=out.append, on_stderr=err.append, node=served)
    assert "".join(out) == "a\né"
    assert err == ["b\n"]
    assert execution.stdout == "a\né"


def test_an_exception_in_a_callback_ends_the_program_and_is_raised(served: str, node: ScriptedNode) -> None:
    def fail(_: str) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run("out x\nsleep 60", on_stdout=fail, node=served)
    _wait_for(lambda: bool(node.cancelled))


def test_a_runner_runs_several_programs_with_its_options(served: str, node: ScriptedNode) -> None:
    with Runner(mem_mib=300, lang="bash", node=served) as runner:
        assert runner.run("out 1").stdout == "1\n"
        assert runner.run("out 2", mem_mib=400).stdout == "2\n"
    assert [(r.lang, r.limits.mem_mib) for r in node.requests] == [("bash", 300), ("bash", 400)]
    with pytest.raises(NodeError, match="outside"):
        runner.run("out 3")


def test_a_runner_outlives_its_node_s_restart(node: ScriptedNode, tmp_path: Path) -> None:
    address = f"unix:{tmp_path / 'n'}"
    with serve_in_thread(node, unix_socket=tmp_path / "n"):
        runner = Runner(node=address)
        runner.__enter__()
    try:
        with pytest.raises(NodeUnavailableError):
            runner.run("out x")
        with serve_in_thread(node, unix_socket=tmp_path / "n"):
            assert runner.run("out x").stdout == "x\n"
    finally:
        runner.__exit__(None, None, None)


@pytest.mark.anyio
async def test_the_asynchronous_face_takes_coroutine_functions(node: ScriptedNode, tmp_path: Path) -> None:
    heard: list[str] = []

    async def hear(text: str) -> None:
        await anyio.lowlevel.checkpoint()
        heard.append(text)

    async with open_server(node, unix_socket=tmp_path / "n"), AsyncRunner(node=f"unix:{tmp_path / 'n'}") as runner:
        execution = await runner.run("out x", on_stdout=hear)
    assert (heard, execution.ok) == (["x\n"], True)


@pytest.mark.anyio
async def test_cancelling_a_run_ends_the_program(node: ScriptedNode, tmp_path: Path) -> None:
    async with open_server(node, unix_socket=tmp_path / "n"):
        with anyio.fail_after(20):
            async with anyio.create_task_group() as group:
                group.start_soon(partial(arun, "sleep 60", node=f"unix:{tmp_path / 'n'}"))
                while not node.requests:  # noqa: ASYNC110 - the other side is a plain object
                    await anyio.sleep(0.01)
                group.cancel_scope.cancel()
            while not node.cancelled:  # noqa: ASYNC110
                await anyio.sleep(0.01)


@pytest.mark.anyio
async def test_an_execution_can_be_fetched_again(node: ScriptedNode, tmp_path: Path) -> None:
    async with open_server(node, unix_socket=tmp_path / "n"):
        client = NodeClient(NodeAddress(unix_socket=tmp_path / "n"))
        execution = await client.execute(ExecutionRequest(code="out x"))
        assert await client.find(execution.id) == execution
        assert (await client.host())["kind"] == "fake"
        with pytest.raises(NotFoundError):
            await client.find(ExecutionId("ex-none"))


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"timeout_s": 0}, "limits.timeout_s"),
        ({"timeout_s": -1}, "limits.timeout_s"),
        ({"timeout_s": float("nan")}, "limits.timeout_s"),
        ({"timeout_s": 31536000}, "limits.timeout_s"),
        ({"mem_mib": 1}, "limits.mem_mib"),
        ({"mem_mib": 1 << 20}, "limits.mem_mib"),
        ({"lang": "ruby"}, "lang"),
        ({"args": [1]}, "args[0]"),
        ({"env": {"a b": "c"}}, "env"),
        ({"env": {"A\n": "c"}}, "env"),
        ({"policy": "UPPER"}, "policy"),
    ],
    ids=repr,
)
def test_impossible_values_are_refused_before_anything_is_sent(
    served: str, node: ScriptedNode, options: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        run("out x", node=served, **options)
    assert caught.value.field == field
    assert field.split("[", maxsplit=1)[0] in str(caught.value)
    assert not node.requests


def test_an_unknown_option_is_a_type_error(served: str) -> None:
    with pytest.raises(TypeError, match="memory"):
        run("out x", node=served, memory=5)  # type: ignore[call-arg]


@pytest.mark.parametrize("streamed", [False, True])
def test_errors_of_the_node_come_back_as_their_own_types(served: str, streamed: bool) -> None:
    hear = (lambda _: None) if streamed else None
    with pytest.raises(CapacityError) as caught:
        run("refuse capacity", node=served, on_stdout=hear)
    assert caught.value.retry_after_s == 2.5
    assert caught.value.retryable


def test_a_node_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(NodeUnavailableError, match=str(tmp_path / "none")):
        run("out x", node=f"unix:{tmp_path / 'none'}")


def test_a_node_of_another_version_is_refused(tmp_path: Path) -> None:
    with serve_in_thread(ScriptedNode(api=2), unix_socket=tmp_path / "n"), pytest.raises(NodeVersionError, match="2"):
        run("out x", node=f"unix:{tmp_path / 'n'}")


def test_tcp_takes_its_token_from_the_configured_file(
    node: ScriptedNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("secret\n")
    with serve_in_thread(node, tcp=True, token="secret") as bound:
        assert bound.tcp is not None
        monkeypatch.setenv("MAYFLY_NODE", f"http://127.0.0.1:{bound.tcp[1]}")
        with pytest.raises(AuthError):
            run("out x")
        monkeypatch.setenv("MAYFLY_NODE_TOKEN_FILE", str(tmp_path / "token"))
        assert run("out x").stdout == "x\n"


def test_the_state_s_own_node_is_used_when_it_runs_this_code(tmp_path: Path) -> None:
    paths = StatePaths(tmp_path / "state").make()
    with serve_in_thread(ScriptedNode(code_hash=code_hash()), unix_socket=paths.node_socket):
        assert run("out own").stdout == "own\n"


def test_the_system_s_node_is_used_where_the_state_has_none(tmp_path: Path) -> None:
    with serve_in_thread(ScriptedNode(), unix_socket=tmp_path / "system.sock"):
        assert run("out system").stdout == "system\n"


def test_a_socket_that_a_dead_node_left_does_not_hide_the_system_s_node(tmp_path: Path) -> None:
    paths = StatePaths(tmp_path / "state").make()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(paths.node_socket))
    with serve_in_thread(ScriptedNode(), unix_socket=tmp_path / "system.sock"):
        assert run("out system").stdout == "system\n"


@pytest.mark.parametrize("stale", [False, True])
def test_a_node_is_started_where_none_runs_or_another_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stale: bool
) -> None:
    paths = StatePaths(tmp_path / "state").make()
    started: list[str] = []
    nodes: list[Any] = []

    def ensure_node(asked: StatePaths, on_progress: Any, **options: Any) -> None:
        started.append(str(asked.root))
        on_progress("starting")
        if nodes:
            nodes.pop().__exit__(None, None, None)
        nodes.append(serve_in_thread(ScriptedNode(code_hash=code_hash()), unix_socket=paths.node_socket))
        nodes[0].__enter__()

    monkeypatch.setattr("mayfly.node.bringup.ensure_node", ensure_node)
    try:
        if stale:
            nodes.append(serve_in_thread(ScriptedNode(code_hash="other"), unix_socket=paths.node_socket))
            nodes[0].__enter__()
        assert run("out fresh").stdout == "fresh\n"
        assert run("out again").stdout == "again\n"
    finally:
        for node in nodes:
            node.__exit__(None, None, None)
    assert started == [str(paths.root)]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", NodeLostError),
        (b"HTTP/1.1 200 OK\r\n", NodeLostError),
        (b"\0\0\0 garbage \r\n\r\n", NodeLostError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", NodeLostError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", NodeVersionError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n\xff\xff\xff\xff", NodeVersionError),
        (b"HTTP/1.1 500 No\r\nContent-Length: 4\r\n\r\noops", NodeError),
        (b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", CapacityError),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n", NodeLostError),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000, NodeLostError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 90000000\r\n\r\n" + b" " * 6_000_000, NodeError),
    ],
    ids=lambda value: repr(value[:50]) if isinstance(value, bytes) else value.__name__,
)
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_node_that_does_not_keep_to_the_protocol_is_a_typed_error(
    tmp_path: Path, answer: bytes, error: type[Exception], streamed: bool
) -> None:
    async def misbehave(stream: Any) -> None:
        async with stream:
            await stream.receive()
            try:
                await stream.send(answer)
            except anyio.BrokenResourceError:
                return

    async def ignore(_: Any) -> None:
        return

    listener = await anyio.create_unix_listener(tmp_path / "n")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(partial(listener.serve, misbehave))
        client = NodeClient(NodeAddress(unix_socket=tmp_path / "n"))
        request = ExecutionRequest(code="")
        # A stream's last line without its end is a stream that was cut off.
        expected = NodeLostError if streamed and error is NodeVersionError else error
        with pytest.raises(expected):
            await client.execute(request, on_event=ignore if streamed else None)
        tasks.cancel_scope.cancel()


@pytest.mark.anyio
async def test_a_node_that_says_nothing_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mayfly.client.core._MARGIN_S", 0.1)
    listener = await anyio.create_unix_listener(tmp_path / "n")

    async def silent(stream: Any) -> None:
        async with stream:
            await anyio.sleep_forever()

    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(partial(listener.serve, silent))
        client = NodeClient(NodeAddress(unix_socket=tmp_path / "n"))
        request = ExecutionRequest(code="", limits=ExecutionRequest(code="").limits.__class__(timeout_s=0.1))
        with anyio.fail_after(10), pytest.raises(NodeLostError, match="said nothing"):
            await client.execute(request)
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("unix:/run/x.sock", "unix:/run/x.sock"),
        ("unix:///run/x.sock", "unix:/run/x.sock"),
        ("/run/x.sock", "unix:/run/x.sock"),
        ("http://localhost:80", "http://localhost:80"),
        ("http://[::1]:8080/", "http://[::1]:8080"),
        ("https://node.example", "https://node.example:443"),
    ],
)
def test_addresses_that_are_understood(text: str, shown: str) -> None:
    assert str(parse_address(text)) == shown


@pytest.mark.parametrize(
    "text",
    ["", "unix:", "node", "ftp://h:1", "http://h", "http://h:0", "http://h:99999", "http://h:1/path", "http://u@h:1",
     "http://h:1?q", "http://[::1:8", "unix:\0"],
)  # fmt: skip
def test_addresses_that_are_not_are_refused_with_the_forms_that_are(text: str) -> None:
    with pytest.raises(InvalidRequestError, match="unix:PATH"):
        parse_address(text)


@given(st.text(max_size=60))
def test_any_text_is_an_address_or_an_invalid_request(text: str) -> None:
    with contextlib.suppress(InvalidRequestError):
        assert isinstance(parse_address(text), NodeAddress)


def test_a_token_is_not_shown() -> None:
    assert "secret" not in repr(parse_address("http://h:1", token="secret"))


@pytest.mark.parametrize("content", [b"", b"\n", b"a b", b"a\nb", b"\xff", b"x" * 5000], ids=repr)
def test_a_file_that_holds_no_token_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t").write_bytes(content)
    with pytest.raises(InvalidRequestError):
        read_token(tmp_path / "t")


@given(st.text(), st.data())
def test_output_cut_anywhere_is_put_together_again(text: str, data: st.DataObject) -> None:
    from base64 import b64encode

    encoded = text.encode("utf-8", "ignore")
    cut = data.draw(st.integers(0, len(encoded)))
    heard: list[str] = []
    relay = TextRelay({"stdout": heard.append})

    async def feed() -> None:
        for part in (encoded[:cut], encoded[cut:]):
            await relay.take(Output(stream="stdout", base64=b64encode(part).decode()))

    anyio.run(feed)
    assert "".join(heard) == encoded.decode()


def _wait_for(condition: Any) -> None:
    waited = threading.Event()
    for _ in range(1000):
        if condition():
            return
        waited.wait(0.01)
    pytest.fail("did not happen within 10 s")
