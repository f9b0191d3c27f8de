"""`Sandbox` and its asynchronous core against a node that says what the test wrote down, and misbehaves on request."""

from __future__ import annotations

import contextlib
import json
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import anyio
import anyio.lowlevel
import h11
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mayfly import AsyncSandbox, Sandbox
from mayfly.client import discovery
from mayfly.client.address import NodeAddress
from mayfly.client.calls import SandboxCalls
from mayfly.client.core import NodeClient
from mayfly.client.results import Result
from mayfly.client.text import written_bytes
from mayfly.client.trees import inside
from mayfly.errors import (
    DeniedError,
    FileMissingError,
    FileSystemError,
    InvalidRequestError,
    NodeError,
    NodeLostError,
    NotFoundError,
    SandboxEndedError,
    SandboxLostError,
)
from mayfly.host.eventloop import open_portal
from mayfly.sandbox_model import CodeEvent, CommandEvent, SandboxId

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

INFO: dict[str, Any] = {
    "id": "sb-1",
    "state": "running",
    "image": "python",
    "lang": "python",
    "created_at": "2026-01-01T00:00:00Z",
    "expires_at": "2026-01-01T01:00:00Z",
    "timeout_s": 3600,
    "idle_timeout_s": 900,
    "limits": {},
    "metadata": {},
    "policy": "default",
}
RUN: dict[str, Any] = {"id": "run-1", "sandbox_id": "sb-1", "context": "default", "language": "python"}
ACCEPTED = {"event": "accepted", "offset": 0, "id": "run-1", "context": "default"}
CUT = object()
"""In a stream: the connection breaks here."""
WAIT = object()
"""In a stream: nothing comes until the connection is closed by the client."""


@dataclass
class Asked:
    """One request as it came."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Node:
    """Answers `METHOD path` with the next of the answers written down for it; the last one stays.

    An answer is (status, value) with a value for JSON or bytes, or a list of events for a stream.
    """

    address: str
    answers: dict[str, list[Any]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)

    def on(self, what: str, *answers: Any) -> None:
        self.answers[what] = list(answers)

    def requests(self, what: str) -> list[Asked]:
        return [asked for asked in self.asked if f"{asked.method} {asked.path}" == what]

    async def serve(self, stream: Any) -> None:
        async with stream:
            with contextlib.suppress(anyio.BrokenResourceError, anyio.EndOfStream, h11.RemoteProtocolError):
                await self._exchange(stream)

    async def _exchange(self, stream: Any) -> None:
        http = h11.Connection(h11.SERVER)
        head: Any = None
        body = b""
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                http.receive_data(await stream.receive())
            elif isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                break
            else:
                return
        parts = urlsplit(head.target.decode())
        path = parts.path.removeprefix("/v1/sandboxes/sb-1") if parts.path.startswith("/v1/sandboxes/") else parts.path
        query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        headers = {name.decode(): value.decode() for name, value in head.headers}
        self.asked.append(Asked(head.method.decode(), path, query, headers, body))
        await self._answer(http, stream, f"{head.method.decode()} {path}")

    async def _answer(self, http: h11.Connection, stream: Any, what: str) -> None:
        written = self.answers.get(what, [(404, {"error": {"code": "not_found", "message": f"nothing for {what}"}})])
        answer = written.pop(0) if len(written) > 1 else written[0]
        status, value = (200, answer) if isinstance(answer, list) else answer
        chunked = isinstance(value, list)
        content = value if isinstance(value, bytes) else b"" if chunked else json.dumps(value).encode()
        framing = ("Transfer-Encoding", "chunked") if chunked else ("Content-Length", str(len(content)))
        await stream.send(http.send(h11.Response(status_code=status, headers=[framing])))
        if not chunked:
            if status != 204 and content:
                await stream.send(http.send(h11.Data(data=content)) or b"")
            return
        for event in value:
            if event is CUT:
                return
            if callable(event):
                while not event():  # noqa: ASYNC110 - the test's thread is the other side
                    await anyio.sleep(0.005)
                continue
            if event is WAIT:
                await stream.receive()
                return
            await stream.send(
                http.send(h11.Data(data=(json.dumps(event) if event != "" else "").encode() + b"\n")) or b""
            )
        await stream.send(http.send(h11.EndOfMessage()) or b"")


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAYFLY_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("MAYFLY_NODE", raising=False)
    monkeypatch.setattr(discovery, "SYSTEM_SOCKET", tmp_path / "system.sock")
    monkeypatch.setattr("mayfly.client.calls._PAUSES_S", (0.01, 0.01, 0.01))


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    node = Node(f"unix:{tmp_path / 'n'}")
    node.on("GET /healthz", (200, {"status": "ok", "api": 1, "code_hash": "x"}))
    node.on("POST /v1/sandboxes", (201, INFO))
    node.on("GET ", (200, INFO))
    node.on("DELETE ", (200, {**INFO, "state": "ended", "reason": "killed"}))

    @contextlib.asynccontextmanager
    async def open_node() -> AsyncIterator[None]:
        listener = await anyio.create_unix_listener(tmp_path / "n")
        async with listener, anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, node.serve)
            yield
            tasks.cancel_scope.cancel()

    with (
        open_portal() as portal,
        portal.wrap_async_context_manager(open_node()),
    ):
        yield node


@pytest.fixture
def sandbox(node: Node) -> Iterator[Sandbox]:
    with Sandbox(node=node.address) as sandbox:
        yield sandbox


def finished(offset: int, **fields: Any) -> dict[str, Any]:
    return {"event": "finished", "offset": offset, "execution": {**RUN, "status": "succeeded", **fields}}


def out(offset: int, text: str, stream: str = "stdout") -> dict[str, Any]:
    return {"event": "output", "offset": offset, "stream": stream, "text": text}


# -- making and ending ------------------------------------------------------------------------------------------


def test_a_with_block_makes_a_sandbox_and_kills_it(node: Node) -> None:
    with Sandbox(node=node.address, timeout_s=60, metadata={"task": "1"}, limits={"mem_mib": 512}) as sandbox:
        assert sandbox.id == "sb-1"
        assert not node.requests("DELETE ")
    body = node.requests("POST /v1/sandboxes")[0].json()
    assert (body["timeout_s"], body["metadata"], body["limits"]["mem_mib"]) == (60, {"task": "1"}, 512)
    assert len(node.requests("DELETE ")) == 1


def test_what_create_makes_lives_on_without_a_block(node: Node) -> None:
    sandbox = Sandbox.create(node=node.address)
    sandbox.close()
    assert not node.requests("DELETE ")
    assert sandbox.kill()


def test_limits_that_are_absent_come_from_the_configuration(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAYFLY_LIMITS_MEM_MIB", "640")
    with Sandbox(node=node.address, limits={"vcpus": 2}):
        limits = node.requests("POST /v1/sandboxes")[0].json()["limits"]
    assert (limits["mem_mib"], limits["vcpus"]) == (640, 2)


def test_a_connected_sandbox_outlives_the_block(node: Node) -> None:
    with Sandbox.connect("sb-1", node=node.address) as sandbox:
        assert sandbox.info().state == "running"
    assert not node.requests("DELETE ")


@pytest.mark.parametrize(("state", "error"), [("ended", SandboxEndedError), ("lost", SandboxLostError)])
def test_connecting_to_one_that_has_ended_says_why(node: Node, state: str, error: type[Exception]) -> None:
    node.on("GET ", (200, {**INFO, "state": state, "reason": "the node was restarted"}))
    with pytest.raises(error, match="the node was restarted") as caught:
        Sandbox.connect("sb-1", node=node.address)
    assert getattr(caught.value, "sandbox_id", None) == "sb-1"


def test_killing_twice_is_no_error(node: Node, sandbox: Sandbox) -> None:
    assert sandbox.kill()
    node.on("GET ", (200, {**INFO, "state": "ended"}))
    assert not sandbox.kill()
    node.on("GET ", (410, {"error": {"code": "sandbox_ended", "message": "it has ended"}}))
    assert not sandbox.kill()


def test_sandboxes_are_listed(node: Node) -> None:
    node.on("GET /v1/sandboxes", (200, {"sandboxes": [INFO, {**INFO, "id": "sb-2"}]}))
    assert [info.id for info in Sandbox.list(node=node.address)] == ["sb-1", "sb-2"]
    assert node.requests("GET /v1/sandboxes")[0].query == {"state": "running"}


def test_times_can_be_changed(node: Node, sandbox: Sandbox) -> None:
    node.on("POST /timeout", (200, {**INFO, "timeout_s": 10}))
    assert sandbox.set_timeout(10).timeout_s == 10
    assert node.requests("POST /timeout")[0].json() == {"timeout_s": 10.0, "idle_timeout_s": None}


def test_outside_of_its_block_it_says_how_to_open_it() -> None:
    with pytest.raises(NodeError, match="`create` or `connect`"):
        Sandbox().run_code("1")


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"timeout_s": 0}, "timeout_s"),
        ({"lang": "ruby"}, "lang"),
        ({"limits": {"mem_mib": 1}}, "limits.mem_mib"),
        ({"limits": {"memory": 1}}, "limits.memory"),
        ({"envs": {"a b": "c"}}, "envs"),
        ({"metadata": {str(number): "x" for number in range(40)}}, "metadata"),
    ],
    ids=repr,
)
def test_impossible_options_are_refused_before_anything_is_sent(options: dict[str, Any], name: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        Sandbox(**options)
    assert name in str(caught.value)


def test_an_unknown_option_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="memory"):
        Sandbox(memory=5)  # type: ignore[call-arg]


# -- running code -----------------------------------------------------------------------------------------------


def test_run_code_gives_results_logs_and_the_last_value(node: Node, sandbox: Sandbox) -> None:
    shown = {"data": {"text/html": "<b>1</b>"}}
    main = {"data": {"text/plain": "42"}, "is_main_result": True}
    end = finished(9, stdout="hi\n", stderr="oh\n", results=[shown, main], execution_count=3)
    node.on("POST /runs", [ACCEPTED, out(1, "hi\n"), end])
    execution = sandbox.run_code("x", language="python", timeout_s=5, envs={"A": "b"})
    assert (execution.text, execution.logs.stdout, execution.logs.stderr) == ("42", "hi\n", "oh\n")
    assert (execution.ok, execution.execution_count, len(execution.results)) == (True, 3, 2)
    assert execution.results[0].html == "<b>1</b>"
    asked = node.requests("POST /runs")[0].json()
    assert (asked["code"], asked["language"], asked["timeout_s"], asked["envs"]) == ("x", "python", 5.0, {"A": "b"})


def test_what_the_code_raised_is_data(node: Node, sandbox: Sandbox) -> None:
    error = {"name": "ZeroDivisionError", "value": "division by zero", "traceback": "Traceback …"}
    node.on(
        "POST /runs",
        [ACCEPTED, {"event": "error", "offset": 1, "error": error}, finished(2, status="failed", error=error)],
    )
    heard: list[Any] = []
    execution = sandbox.run_code("1/0", on_error=heard.append)
    assert execution.error is not None
    assert (execution.status, execution.error.name, heard[0].value) == (
        "failed",
        "ZeroDivisionError",
        "division by zero",
    )


def test_callbacks_are_called_in_the_waiting_thread_in_order(node: Node, sandbox: Sandbox) -> None:
    result = {"event": "result", "offset": 2, "result": {"data": {"text/plain": "7"}}}
    cut = {"event": "output", "offset": 3, "stream": "stdout", "base64": "w6k="}
    node.on("POST /runs", [ACCEPTED, out(1, "a"), result, cut, out(4, "b", "stderr"), finished(5)])
    heard: list[tuple[str, Any, bool]] = []

    def note(kind: str) -> Callable[[Any], None]:
        return lambda value: heard.append((kind, str(value), threading.current_thread() is threading.main_thread()))

    sandbox.run_code("x", on_stdout=note("out"), on_stderr=note("err"), on_result=note("result"))
    assert heard == [("out", "a", True), ("result", "7", True), ("out", "é", True), ("err", "b", True)]


def test_a_callback_may_use_the_sandbox_itself(node: Node, sandbox: Sandbox) -> None:
    node.on("POST /runs", [ACCEPTED, out(1, "a"), finished(2)])
    states: list[str] = []
    sandbox.run_code("x", on_stdout=lambda _: states.append(sandbox.info().state))
    assert states == ["running"]


def test_an_exception_in_a_callback_interrupts_the_code_and_is_raised(node: Node, sandbox: Sandbox) -> None:
    node.on("POST /runs", [ACCEPTED, out(1, "a"), WAIT])
    node.on("POST /contexts/default/interrupt", (204, b""))

    def fail(_: str) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        sandbox.run_code("x", on_stdout=fail)
    _wait_for(lambda: bool(node.requests("POST /contexts/default/interrupt")))
    assert node.requests("POST /contexts/default/interrupt")[0].query == {"run": "run-1"}


def test_a_dropped_stream_goes_on_where_it_broke(node: Node, sandbox: Sandbox) -> None:
    node.on("POST /runs", [ACCEPTED, out(1, "a"), CUT])
    node.on("GET /runs/run-1/events", ["", out(2, "b"), CUT], [out(3, "c"), finished(4, stdout="abc")])
    heard: list[str] = []
    execution = sandbox.run_code("x", on_stdout=heard.append)
    assert (heard, execution.logs.stdout) == (["a", "b", "c"], "abc")
    assert [asked.query for asked in node.requests("GET /runs/run-1/events")] == [{"from": "2"}, {"from": "3"}]
    assert len(node.requests("POST /runs")) == 1


def test_a_stream_that_keeps_breaking_is_given_up(node: Node, sandbox: Sandbox) -> None:
    node.on("POST /runs", [ACCEPTED, CUT])
    node.on("GET /runs/run-1/events", [CUT])
    with pytest.raises(NodeLostError) as caught:
        sandbox.run_code("x")
    assert caught.value.retryable
    assert caught.value.sandbox_id == "sb-1"
    assert len(node.requests("GET /runs/run-1/events")) == 3


def test_a_run_that_was_not_accepted_is_not_sent_twice(node: Node, sandbox: Sandbox) -> None:
    node.on("POST /runs", [CUT])
    with pytest.raises(NodeLostError):
        sandbox.run_code("x")
    assert len(node.requests("POST /runs")) == 1


@pytest.mark.parametrize("line", [[{"event": "nonsense"}], [{"event": "finished", "offset": 1}], ["é"]], ids=repr)
def test_events_that_are_none_are_a_typed_error(node: Node, sandbox: Sandbox, line: list[Any]) -> None:
    node.on("POST /runs", [ACCEPTED, *line])
    with pytest.raises(NodeError, match="does not understand"):
        sandbox.run_code("x")


@settings(deadline=None)  # a first import takes long on a busy machine
@given(
    st.binary(max_size=60)
    | st.dictionaries(
        st.sampled_from(
            ["event", "offset", "id", "context", "stream", "text", "base64", "result", "error", "pid", "end"]
        ),
        st.none()
        | st.integers()
        | st.sampled_from(["accepted", "output", "result", "finished", "ended", "stdout", "=="]),
    ).map(lambda value: json.dumps(value).encode())
)
def test_any_line_of_a_stream_is_an_event_or_a_typed_error(line: bytes) -> None:
    calls = SandboxCalls(NodeClient(NodeAddress(host="h", port=1)), SandboxId("sb-1"))
    for decoder in (msgspec.json.Decoder(CodeEvent), msgspec.json.Decoder(CommandEvent)):
        with contextlib.suppress(NodeError):
            event = calls._decoded(line, decoder)
            if hasattr(event, "base64"):
                assert isinstance(written_bytes(event), bytes)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"timeout_s": 0}, "timeout_s"),
        ({"language": "ruby"}, "language"),
        ({"context": "a b"}, "context"),
        ({"envs": {"1": "x"}}, "envs"),
    ],
    ids=repr,
)
def test_impossible_runs_are_refused_before_anything_is_sent(
    node: Node, sandbox: Sandbox, options: dict[str, Any], name: str
) -> None:
    with pytest.raises(InvalidRequestError, match=name):
        sandbox.run_code("x", **options)
    assert not node.requests("POST /runs")


def test_an_ended_sandbox_is_named_in_the_error(node: Node, sandbox: Sandbox) -> None:
    node.on("POST /runs", (410, {"error": {"code": "sandbox_ended", "message": "sandbox sb-1 ended: idle for 900 s"}}))
    with pytest.raises(SandboxEndedError, match="idle for 900 s") as caught:
        sandbox.run_code("x")
    assert (caught.value.sandbox_id, caught.value.retryable) == ("sb-1", False)


def test_contexts_are_made_listed_and_told(node: Node, sandbox: Sandbox) -> None:
    made = {"id": "ctx-1", "lang": "bash", "cwd": "/home/user"}
    node.on("POST /contexts", (201, made))
    node.on("GET /contexts", (200, {"contexts": [made]}))
    for what in ("restart", "interrupt"):
        node.on(f"POST /contexts/ctx-1/{what}", (204, b""))
    node.on("DELETE /contexts/ctx-1", (204, b""))
    node.on("POST /runs", [ACCEPTED, finished(1)])
    context = sandbox.create_context("bash", cwd="/tmp")
    assert (context.id, [found.id for found in sandbox.list_contexts()]) == ("ctx-1", ["ctx-1"])
    sandbox.run_code("x", context=context)
    sandbox.restart_context(context)
    sandbox.interrupt("ctx-1")
    sandbox.remove_context(context)
    assert node.requests("POST /runs")[0].json()["context"] == "ctx-1"
    assert node.requests("DELETE /contexts/ctx-1")


@pytest.mark.anyio
async def test_the_asynchronous_face_takes_coroutine_functions_and_cancelling_interrupts(node: Node) -> None:
    node.on("POST /runs", [ACCEPTED, out(1, "a"), WAIT])
    node.on("POST /contexts/default/interrupt", (204, b""))
    heard: list[str] = []
    async with AsyncSandbox(node=node.address) as sandbox:
        with anyio.CancelScope() as scope:

            async def hear(text: str) -> None:
                await anyio.lowlevel.checkpoint()
                heard.append(text)
                scope.cancel()

            await sandbox.run_code("x", on_stdout=hear)
    assert heard == ["a"]
    assert node.requests("POST /contexts/default/interrupt")[0].query == {"run": "run-1"}


# -- commands ---------------------------------------------------------------------------------------------------

STARTED = {"event": "accepted", "offset": 0, "pid": 7}


def ended(offset: int, exit_code: int = 0, **fields: Any) -> dict[str, Any]:
    status = "failed" if exit_code else "succeeded"
    return {"event": "ended", "offset": offset, "end": {"status": status, "exit_code": exit_code, **fields}}


def test_a_command_is_waited_for_and_its_exit_code_is_data(node: Node, sandbox: Sandbox) -> None:
    node.on("POST /commands", [STARTED, out(3, "hi\n"), out(6, "no\n", "stderr"), ended(6, 3)])
    heard: list[str] = []
    result = sandbox.commands.run("ls | head", cwd="/tmp", timeout_s=5, on_stdout=heard.append)
    assert (result.exit_code, result.stdout, result.stderr, result.pid, result.status) == (
        3,
        "hi\n",
        "no\n",
        7,
        "failed",
    )
    assert heard == ["hi\n"]
    asked = node.requests("POST /commands")[0].json()
    assert (asked["cmd"], asked["cwd"], asked["background"]) == ("ls | head", "/tmp", False)


def test_a_list_of_arguments_is_no_line_for_a_shell(node: Node, sandbox: Sandbox) -> None:
    node.on("POST /commands", [STARTED, ended(0)])
    sandbox.commands.run(["echo", "a b"])
    asked = node.requests("POST /commands")[0].json()
    assert (asked.get("cmd"), asked["args"]) == (None, ["echo", "a b"])


def test_input_is_given_and_ended(node: Node, sandbox: Sandbox) -> None:
    fed = node.requests
    for number, text in enumerate(("text", ""), 1):
        node.on("POST /commands", [STARTED, lambda: len(fed("POST /commands/7/stdin")) == number, ended(0)])  # noqa: B023
        node.on("POST /commands/7/stdin", (204, b""))
        sandbox.commands.run("cat", stdin=text)
    assert [asked.body for asked in fed("POST /commands/7/stdin")] == [b"text", b""]
    assert fed("POST /commands/7/stdin")[0].query == {"eof": "true"}
    assert node.requests("POST /commands")[1].json()["stdin"]


def test_a_background_command_is_followed_fed_and_killed(node: Node, sandbox: Sandbox) -> None:
    node.on("POST /commands", (201, {"pid": 7, "command": "cat"}))
    node.on("POST /commands/7/stdin", (204, b""))
    node.on("POST /commands/7/signal", (204, b""), (404, {"error": {"code": "not_found", "message": "it ended"}}))
    node.on("GET /commands/7/events", [out(2, "a\n"), CUT], [out(4, "b\n"), ended(4, 137, signal="SIGKILL")])
    command = sandbox.commands.run("cat", background=True, stdin=True)
    command.send_stdin("a\n")
    command.close_stdin()
    assert command.kill("SIGTERM")
    assert not command.kill()
    result = command.wait()
    assert (result.stdout, result.exit_code, result.signal) == ("a\nb\n", 137, "SIGKILL")
    assert [asked.query for asked in node.requests("GET /commands/7/events")] == [{"from": "0"}, {"from": "2"}]
    assert [asked.json()["signal"] for asked in node.requests("POST /commands/7/signal")] == ["SIGTERM", "SIGKILL"]
    assert command.offset == 4


def test_a_command_is_found_again_by_its_pid(node: Node, sandbox: Sandbox) -> None:
    node.on("GET /commands", (200, {"commands": [{"pid": 7, "command": "cat"}]}))
    node.on("GET /commands/7/events", [{"event": "gap", "offset": 9, "bytes": 4}, out(10, "x"), ended(10)])
    result = sandbox.commands.connect(7, offset=5).wait()
    assert (result.stdout, result.truncated) == ("x", True)
    with pytest.raises(NotFoundError):
        sandbox.commands.connect(8)


def test_a_refused_command_is_status_denied_and_in_the_background_an_error(node: Node, sandbox: Sandbox) -> None:
    refused = {"status": "denied", "exit_code": 126, "scan": {"verdict": "deny"}}
    node.on("POST /commands", [{"event": "ended", "offset": 0, "end": refused}], (200, refused))
    assert sandbox.commands.run("rm -rf /").status == "denied"
    with pytest.raises(DeniedError):
        sandbox.commands.run("rm -rf /", background=True)


def test_more_output_than_is_kept_is_cut(node: Node) -> None:
    node.on("POST /v1/sandboxes", (201, {**INFO, "limits": {"output_bytes": 4}}))
    node.on("POST /commands", [STARTED, out(3, "abc"), out(6, "def"), ended(6)])
    with Sandbox(node=node.address) as sandbox:
        result = sandbox.commands.run("x")
    assert (result.stdout, result.truncated) == ("abcd", True)


# -- files ------------------------------------------------------------------------------------------------------


def entry(path: str, kind: str = "file", **fields: Any) -> dict[str, Any]:
    return {
        "path": path,
        "name": path.rsplit("/", 1)[-1],
        "kind": kind,
        "size": 1,
        "mode": 420,
        "modified_at": 0.0,
        **fields,
    }


def test_files_are_read_and_written_as_text_and_bytes(node: Node, sandbox: Sandbox) -> None:
    node.on("GET /files", (200, b"caf\xc3\xa9\xff"))
    node.on("PUT /files", (200, entry("/home/user/a")))
    assert sandbox.files.read("a") == "café\ufffd"
    assert sandbox.files.read("a", format="bytes") == b"caf\xc3\xa9\xff"
    sandbox.files.write("ä b\n/..", "café", mode=0o600)
    sandbox.files.write("b", iter([b"a", b"b"]), append=True)
    first, second = node.requests("PUT /files")
    assert (first.query, first.body) == ({"path": "ä b\n/..", "mode": "600"}, "café".encode())
    assert (second.query, second.body) == ({"path": "b", "append": "true"}, b"ab")


def test_a_part_of_a_file_is_asked_for_as_a_range(node: Node, sandbox: Sandbox) -> None:
    node.on("GET /files", (206, b"cde"))
    assert b"".join(sandbox.files.stream("a", offset=2, length=3)) == b"cde"
    assert node.requests("GET /files")[0].headers["range"] == "bytes=2-4"


def test_what_the_file_system_says_is_a_typed_error(node: Node, sandbox: Sandbox) -> None:
    node.on("GET /files", (404, {"error": {"code": "file_missing", "message": "there is no a"}}))
    node.on("GET /files/info", (404, {"error": {"code": "file_missing", "message": "there is no a"}}))
    with pytest.raises(FileMissingError) as caught:
        sandbox.files.read("a")
    assert caught.value.sandbox_id == "sb-1"
    assert not sandbox.files.exists("a")


def test_half_a_surrogate_pair_is_refused(sandbox: Sandbox) -> None:
    with pytest.raises(InvalidRequestError, match="surrogate"):
        sandbox.files.read("\ud800")


def test_a_directory_is_watched_until_the_block_ends(node: Node, sandbox: Sandbox) -> None:
    made = {"event": "file", "kind": "created", "path": "/home/user/a"}
    node.on("GET /files/watch", [{"event": "file", "kind": "ready", "path": "/home/user"}, "", made, WAIT])
    with sandbox.files.watch(".", recursive=True) as events:
        assert next(events).path == "/home/user/a"


def test_directories_and_globs_go_up(node: Node, sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "d" / "sub").mkdir(parents=True)
    (tmp_path / "d" / "a.csv").write_text("a")
    (tmp_path / "d" / "sub" / "b.csv").write_text("b")
    node.on("PUT /files", (200, entry("/x")))
    node.on("POST /files/directory", (200, entry("/x", "directory")))
    node.on("GET /files/info", (404, {"error": {"code": "file_missing", "message": "none"}}))
    assert list(sandbox.files.upload(tmp_path / "d", "in")) == ["in/a.csv", "in/sub/b.csv"]
    assert list(sandbox.files.upload(str(tmp_path / "d" / "*.csv"), "in/")) == ["in/a.csv"]
    assert list(sandbox.files.upload(tmp_path / "d" / "a.csv", "new.csv")) == ["new.csv"]
    assert [asked.query["path"] for asked in node.requests("PUT /files")][:2] == ["in/a.csv", "in/sub/b.csv"]
    with pytest.raises(InvalidRequestError, match="does not exist"):
        sandbox.files.upload(tmp_path / "none")


def test_directories_and_globs_come_down(node: Node, sandbox: Sandbox, tmp_path: Path) -> None:
    listed = [entry("/home/user/out/a"), entry("/home/user/out/d", "directory"), entry("/home/user/out/d/b")]
    fifo = entry("/home/user/out/fifo", "fifo")
    node.on("GET /files/info", (200, entry("/home/user/out", "directory")))
    node.on("GET /files/list", (200, {"files": [*listed, fifo], "truncated": False}))
    node.on("GET /files", (200, b"x"))
    found = sandbox.files.download("out", tmp_path / "here")
    assert [str(path.relative_to(tmp_path)) for path in found] == ["here/a", "here/d/b"]
    node.on("GET /files/info", (404, {"error": {"code": "file_missing", "message": "none"}}))
    assert [path.name for path in sandbox.files.download("out/a*", tmp_path)] == ["a"]
    node.on("GET /files/list", (200, {"files": [entry("/home/user/out/a"), entry("/home/user/out/b")]}))
    several = sandbox.files.download("out/*", tmp_path / "new" / "place")
    assert [str(path.relative_to(tmp_path)) for path in several] == ["new/place/a", "new/place/b"]


@pytest.mark.parametrize(
    "path",
    [
        "/home/user/out/../../../evil",
        "/home/user/out/a/../../b",
        "/etc/passwd",
        "/home/user/out//a",
        "/home/user/out/..",
    ],
)
def test_a_listing_that_leads_out_of_the_directory_writes_nothing(
    node: Node, sandbox: Sandbox, tmp_path: Path, path: str
) -> None:
    (tmp_path / "goal").mkdir()
    node.on("GET /files/info", (200, entry("/home/user/out", "directory")))
    node.on("GET /files/list", (200, {"files": [entry(path)], "truncated": False}))
    node.on("GET /files", (200, b"x"))
    with pytest.raises(FileSystemError):
        sandbox.files.download("out", tmp_path / "goal" / "out")
    assert [found for found in tmp_path.rglob("*") if found.is_file() and not found.match("state/*")] == []


@settings(deadline=None)  # a first import takes long on a busy machine
@given(st.lists(st.text(max_size=8), min_size=1, max_size=4))
def test_no_names_lead_out_of_a_directory(names: list[str]) -> None:
    from pathlib import PurePosixPath

    with contextlib.suppress(FileSystemError):
        path = inside(PurePosixPath("/goal"), names)  # type: ignore[arg-type]
        assert ".." not in path.parts
        assert path.is_relative_to("/goal")
        assert len(path.parts) == 2 + len(names)


# -- results ----------------------------------------------------------------------------------------------------


def test_a_result_names_its_formats_and_shows_itself_in_notebooks(tmp_path: Path) -> None:
    bundle = {
        "text/plain": "<Figure>",
        "image/png": "iVBORw==",
        "application/json": {"a": 1},
        "application/vnd.mayfly.chart+json": {"kind": "line"},
        "application/x-own": "y",
    }
    result = Result(bundle, is_main_result=True)
    assert result.formats() == ["text", "png", "json", "chart", "application/x-own"]
    assert (result.json, result.chart, result.extra, result.html) == (
        {"a": 1},
        {"kind": "line"},
        {"application/x-own": "y"},
        None,
    )
    assert result.content("png") == b"\x89PNG"
    assert result.save(tmp_path / "plot.png").read_bytes() == b"\x89PNG"
    assert result.save(tmp_path / "chart", format="chart").read_bytes() == b'{"kind":"line"}'
    shown = result._repr_mimebundle_()
    assert set(shown) == {"text/plain", "image/png", "application/json"}
    assert (str(result), repr(result)) == ("<Figure>", "Result(text, png, json, chart, application/x-own, main)")
    with pytest.raises(InvalidRequestError, match="it has: text"):
        result.content("pdf")


@settings(deadline=None)  # a first import takes long on a busy machine
@given(st.text())
def test_nothing_of_a_sandbox_runs_in_a_notebook_s_own_page(text: str) -> None:
    hostile = f'"></iframe><script>alert(1)</script>{text}'
    bundle = {"text/html": hostile, "application/javascript": "x", "text/markdown": hostile, "image/svg+xml": hostile}
    for kept in (bundle, {"image/svg+xml": hostile}):
        result = Result(kept)
        shown = result._repr_mimebundle_()
        assert set(shown) == {"text/html"}
        assert not hasattr(result, "_repr_javascript_")
        html = shown["text/html"]
        assert html.startswith(('<iframe sandbox="allow-scripts"', "<img src="))
        assert html.count("<") == html.count(">")
        assert html.count("<") <= 2
        assert "allow-same-origin" not in html.partition("srcdoc")[0]
    assert Result(bundle).html == hostile


@settings(deadline=None)  # a first import takes long on a busy machine
@given(
    st.dictionaries(
        st.sampled_from(["text/plain", "text/html", "image/png", "application/json", "x/y"]),
        st.none() | st.integers() | st.text(max_size=9) | st.lists(st.text(max_size=3), max_size=2),
    )
)
def test_any_bundle_is_a_result_that_can_be_shown(bundle: dict[str, Any]) -> None:
    result = Result(bundle)
    assert isinstance(str(result), str)
    for name in result.formats():
        with contextlib.suppress(InvalidRequestError):
            assert isinstance(result.content(name), bytes)
    assert result.text is None or isinstance(result.text, str)


def _wait_for(condition: Callable[[], bool]) -> None:
    waited = threading.Event()
    for _ in range(1000):
        if condition():
            return
        waited.wait(0.01)
    pytest.fail("did not happen within 10 s")
