"""Sandboxes over HTTP and WebSocket: the real node, server and agent; the machines are plain processes."""

from __future__ import annotations

import hashlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import msgspec
import pytest
import wsproto
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Message,
    RejectConnection,
    Request,
    TextMessage,
)

from mayfly.client.address import NodeAddress
from mayfly.client.http import open_exchange
from mayfly.host.sockets import connect_unix
from mayfly.testing.service import open_service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from mayfly.testing.service import Service

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024


class Box:
    """One sandbox, by HTTP."""

    def __init__(self, service: Service, path: str) -> None:
        self.service = service
        self.path = path
        self.address = NodeAddress(unix_socket=service.unix_socket)

    async def raw(
        self, method: str, path: str, content: Any = b"", **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        async with open_exchange(
            self.address, method, self.path + path, headers=given, content=content, deadline_s=60
        ) as answer:
            return answer.status, dict(answer.headers), await answer.read(limit_bytes=256 * MIB, deadline_s=60)

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        content = b"" if body is None else msgspec.json.encode(body)
        status, headers, raw = await self.raw(method, path, content, content_type="application/json")
        if headers.get("content-type") == "application/x-ndjson":
            return status, [msgspec.json.decode(line) for line in raw.splitlines() if line]
        return status, msgspec.json.decode(raw) if raw else None

    async def done(self, method: str, path: str, body: Any = None) -> Any:
        status, answer = await self.ask(method, path, body)
        assert status < 300, answer
        return answer

    async def run(self, code: str, **values: Any) -> Any:
        return await self.done("POST", "/runs", {"code": code, **values})

    async def command(self, cmd: str, **values: Any) -> Any:
        return await self.done("POST", "/commands", {"cmd": cmd, **values})


@pytest.fixture
async def box(tmp_path: Path) -> AsyncIterator[Box]:
    async with open_service(tmp_path) as service:
        made = await Box(service, "/v1/sandboxes").done("POST", "", {"envs": {"WHO": "me"}})
        yield Box(service, f"/v1/sandboxes/{made['id']}")


class Socket:
    """A WebSocket client of few words."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._protocol = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
        self._events: list[Any] = []

    async def send(self, event: Any) -> None:
        await self._stream.send(self._protocol.send(event))

    async def next(self) -> Any:
        with anyio.fail_after(20):
            while not self._events:
                self._protocol.receive_data(await self._stream.receive())
                self._events += self._protocol.events()
        return self._events.pop(0)

    async def until(self, wanted: bytes) -> bytes:
        """Output until `wanted` is in it."""
        seen = b""
        while wanted not in seen:
            event = await self.next()
            assert isinstance(event, BytesMessage), event
            seen += event.data
        return seen


@asynccontextmanager
async def open_socket(box: Box, path: str) -> AsyncIterator[Socket]:
    async with await connect_unix(box.service.unix_socket) as stream:
        socket = Socket(stream)
        await socket.send(Request(host="localhost", target=box.path + path))
        yield socket


async def test_state_is_kept_between_runs_and_contexts_are_apart(box: Box) -> None:
    assert (await box.run("x = 6 * 7\nprint('hi')\nx"))["results"][0]["data"]["text/plain"] == "42"
    assert (await box.run("x + 1"))["results"][0]["data"]["text/plain"] == "43"
    other = await box.done("POST", "/contexts", {"envs": {"MORE": "1"}})
    execution = await box.run("x", context=other["id"])
    assert (execution["status"], execution["error"]["name"]) == ("failed", "NameError")
    execution = await box.run("import os; os.environ['WHO'], os.environ['MORE']", context=other["id"])
    assert execution["results"][0]["data"]["text/plain"] == "('me', '1')"
    listed = await box.done("GET", "/contexts")
    assert {one["id"] for one in listed["contexts"]} == {"default", other["id"]}
    await box.done("POST", "/contexts/default/restart")
    assert (await box.run("x"))["error"]["name"] == "NameError"
    await box.done("DELETE", f"/contexts/{other['id']}")
    assert (await box.ask("POST", "/runs", {"code": "1", "context": other["id"]}))[0] == 404


async def test_output_comes_while_the_code_runs(box: Box) -> None:
    body = msgspec.json.encode({"code": "import time\nprint('now', flush=True)\ntime.sleep(30)"})
    async with open_exchange(
        box.address,
        "POST",
        f"{box.path}/runs?stream=true",
        headers={"Content-Type": "application/json"},
        content=body,
        deadline_s=20,
    ) as answer:
        lines = answer.lines(limit_bytes=MIB, deadline_s=20)
        async for line in lines:
            event = msgspec.json.decode(line)
            if event["event"] == "accepted":
                run = event["id"]
            if event["event"] == "output":
                assert event["text"].startswith("now")
                break
        await box.done("POST", f"/contexts/default/interrupt?run={run}")
        rest = [msgspec.json.decode(line) async for line in lines]
    execution = rest[-1]["execution"]
    assert (execution["status"], execution["state_lost"]) == ("interrupted", False)
    assert execution["error"]["name"] == "KeyboardInterrupt"


async def test_a_timeout_keeps_the_state(box: Box) -> None:
    await box.run("kept = 1")
    execution = await box.run("while True: pass", timeout_s=0.5)
    assert (execution["status"], execution["state_lost"]) == ("timeout", False)
    assert (await box.run("kept"))["results"][0]["data"]["text/plain"] == "1"


async def test_a_context_that_dies_says_that_its_state_is_lost(box: Box) -> None:
    execution = await box.run("import os; os._exit(3)")
    assert (execution["status"], execution["state_lost"]) == ("context_lost", True)
    assert (await box.run("'again'"))["status"] == "succeeded"


async def test_two_clients_of_one_context_take_turns(box: Box) -> None:
    await box.run("n = 0")
    code = "import time\nseen = n\ntime.sleep(0.1)\nn = seen + 1"
    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(box.run, code)
    assert (await box.run("n"))["results"][0]["data"]["text/plain"] == "4"


async def test_too_many_runs_in_one_context_are_told_to_come_again(box: Box) -> None:
    ends: list[Any] = []

    async def run() -> None:
        ends.append(await box.run("import time; time.sleep(0.2)", timeout_s=20))

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(run)
    codes = [end["failure"]["code"] for end in ends if end["status"] == "error"]
    assert 0 < len(codes) < 10
    assert set(codes) == {"busy"}


async def test_bash_keeps_its_state_beside_python(box: Box) -> None:
    await box.run("cd /tmp; greet() { echo hello $1; }", language="bash")
    execution = await box.run("greet you; pwd; false", language="bash")
    assert (execution["status"], execution["stdout"]) == ("failed", "hello you\n/tmp\n")
    assert execution["context"] == "default-bash"
    assert (await box.run("1 + 1"))["context"] == "default"


async def test_a_syntax_error_is_an_error_of_the_code(box: Box) -> None:
    execution = await box.run("print(")
    assert (execution["status"], execution["error"]["name"]) == ("failed", "SyntaxError")


async def test_interrupting_another_run_does_nothing(box: Box) -> None:
    assert (await box.ask("POST", "/contexts/default/interrupt?run=run-" + "0" * 20))[0] == 204
    assert (await box.ask("POST", "/contexts/none/interrupt"))[0] == 404


async def test_files_are_written_read_listed_renamed_and_removed(box: Box) -> None:
    data = bytes(range(256)) * 1024
    status, _, answer = await box.raw("PUT", "/files?path=deep/down/a.bin&mode=640", data)
    assert status == 200, answer
    info = msgspec.json.decode(answer)
    assert (info["kind"], info["size"], info["mode"] & 0o777) == ("file", len(data), 0o640)
    assert (await box.raw("GET", "/files?path=deep/down/a.bin"))[2] == data
    status, headers, part = await box.raw("GET", "/files?path=deep/down/a.bin", Range="bytes=1000-1999")
    assert (status, part, headers["content-range"]) == (206, data[1000:2000], f"bytes 1000-1999/{len(data)}")
    assert (await box.raw("GET", "/files?path=deep/down/a.bin", Range="bytes=-5"))[2] == data[-5:]
    assert (await box.raw("GET", "/files?path=deep/down/a.bin", Range="bytes=999999999-"))[0] == 416
    await box.raw("PUT", "/files?path=deep/down/a.bin&append=true", b"tail")
    assert (await box.done("GET", "/files/info?path=deep/down/a.bin"))["size"] == len(data) + 4
    await box.done("POST", "/files/rename", {"path": "deep/down/a.bin", "to": "b.bin"})
    await box.done("POST", "/files/directory", {"path": "made/too"})
    listed = await box.done("GET", "/files/list?path=.&depth=3")
    assert {"b.bin", "deep", "down", "made", "too"} <= {one["name"] for one in listed["files"]}
    assert (await box.ask("DELETE", "/files?path=deep"))[0] == 409
    await box.done("DELETE", "/files?path=deep&recursive=true")
    status, answer = await box.ask("GET", "/files?path=deep/down/a.bin")
    assert (status, answer["error"]["code"]) == (404, "file_missing")
    assert (await box.command("cat b.bin | wc -c"))["stdout"].strip() == str(len(data) + 4)


async def test_large_files_pass_both_ways_in_pieces(box: Box) -> None:
    block = hashlib.sha256(b"x").digest() * 2048

    async def blocks() -> AsyncIterator[bytes]:
        for _ in range(1024):
            yield block

    status, _, answer = await box.raw("PUT", "/files?path=large", blocks())
    assert status == 200, answer
    size, digest = 0, hashlib.sha256()
    async with open_exchange(box.address, "GET", f"{box.path}/files?path=large", deadline_s=60) as download:
        while (piece := await download._exchange.body_part(60)) is not None:
            size += len(piece)
            digest.update(piece)
    assert size == 1024 * len(block)
    assert digest.digest() == hashlib.sha256(block * 1024).digest()


@pytest.mark.parametrize("name", ["a\nb", "ä ö", "..%2F..%2Fetc%2Fhostname", "a" * 300, "-rf"], ids=ascii)
async def test_strange_names_are_files_or_a_clear_answer(box: Box, name: str) -> None:
    quoted = name if "%" in name else "".join(f"%{byte:02X}" for byte in name.encode())
    status, _, _ = await box.raw("PUT", f"/files?path=dir/{quoted}", b"content")
    if status == 200:
        assert (await box.raw("GET", f"/files?path=dir/{quoted}"))[2] == b"content"
    else:
        assert status in {400, 403, 409}
    assert (await box.run("'on'"))["status"] == "succeeded"


async def test_what_is_no_regular_file_is_refused_at_once(box: Box) -> None:
    await box.command("mkfifo pipe")
    for path in ("pipe", ".", "/dev/zero"):
        status, answer = await box.ask("GET", f"/files?path={path}")
        assert (status, answer["error"]["code"]) == (409, "file_system"), path


async def test_changes_are_seen_as_they_happen(box: Box) -> None:
    await box.done("POST", "/files/directory", {"path": "seen"})
    async with open_exchange(box.address, "GET", f"{box.path}/files/watch?path=seen", deadline_s=20) as answer:
        lines = answer.lines(limit_bytes=MIB, deadline_s=20)
        assert msgspec.json.decode(await anext(lines))["kind"] == "ready"
        await box.raw("PUT", "/files?path=seen/new", b"x")
        event = msgspec.json.decode(await anext(lines))
    assert (event["kind"], event["path"].rpartition("/")[2]) == ("created", "new")


async def test_commands_in_the_foreground(box: Box) -> None:
    result = await box.command("echo out; echo err >&2; echo $WHO $MORE; exit 3", envs={"MORE": "x"})
    assert (result["status"], result["exit_code"]) == ("failed", 3)
    assert (result["stdout"], result["stderr"]) == ("out\nme x\n", "err\n")
    result = await box.done("POST", "/commands", {"args": ["printf", "%s|", "a b", "$c"]})
    assert result["stdout"] == "a b|$c|"
    assert (await box.command("sleep 30", timeout_s=0.3))["status"] == "timeout"
    assert (await box.command("kill -9 $$"))["signal"] == "SIGKILL"
    status, answer = await box.ask("POST", "/commands", {"args": ["/no/such/program"]})
    assert status in {200, 400, 404}, answer
    result = await box.command("head -c 3000000 /dev/zero")
    assert result["truncated"]
    assert len(result["stdout"]) == MIB


async def test_a_command_in_the_background_is_fed_followed_and_ended(box: Box) -> None:
    info = await box.command("while read line; do echo got $line; done; sleep 60", background=True, stdin=True)
    pid = info["pid"]
    assert info["running"]
    await box.raw("POST", f"/commands/{pid}/stdin", b"one\ntwo\n")
    async with open_exchange(box.address, "GET", f"{box.path}/commands/{pid}/events", deadline_s=20) as answer:
        seen, last = "", {}
        async for line in answer.lines(limit_bytes=MIB, deadline_s=20):
            last = msgspec.json.decode(line)
            seen += last.get("text", "")
            if seen.endswith("two\n"):
                break
    assert seen == "got one\ngot two\n"
    await box.raw("POST", f"/commands/{pid}/stdin?eof=true", b"three\n")
    await anyio.sleep(0.3)
    await box.done("POST", f"/commands/{pid}/signal", {"signal": "SIGTERM"})
    rest = await box.done("GET", f"/commands/{pid}/events?from={last['offset']}")
    assert "".join(event.get("text", "") for event in rest) == "got three\n"
    assert rest[-1]["end"]["signal"] == "SIGTERM"
    listed = {one["pid"]: one for one in (await box.done("GET", "/commands"))["commands"]}
    assert not listed[pid]["running"]
    assert (await box.ask("GET", "/commands/4000000/events"))[0] == 404


async def test_a_terminal_by_websocket(box: Box) -> None:
    pid = (await box.command("bash --norc", background=True, pty={"cols": 91, "rows": 31}))["pid"]
    async with open_socket(box, f"/commands/{pid}/socket") as socket:
        assert isinstance(await socket.next(), AcceptConnection)
        await socket.send(Message(data=b"stty size\n"))
        assert (await socket.until(b"31 91"))[:1] == b"\x01"
        await socket.send(Message(data='{"resize": {"cols": 100, "rows": 40}}'))
        await socket.send(Message(data=b"stty size\n"))
        await socket.until(b"40 100")
        await socket.send(Message(data=b"exit 4\n"))
        while not isinstance(event := await socket.next(), TextMessage):
            pass
        assert msgspec.json.decode(event.data)["end"]["exit_code"] == 4
        assert isinstance(await socket.next(), CloseConnection)


async def test_a_port_by_websocket(box: Box) -> None:
    code = (
        "import socket, threading\n"
        "s = socket.create_server(('127.0.0.1', 0))\n"
        "def serve():\n"
        "    c, _ = s.accept()\n"
        "    while data := c.recv(65536): c.sendall(data.upper())\n"
        "    c.sendall(b'bye'); c.close()\n"
        "threading.Thread(target=serve, daemon=True).start()\n"
        "s.getsockname()[1]"
    )
    port = (await box.run(code))["results"][0]["data"]["text/plain"]
    async with open_socket(box, f"/ports/{port}") as socket:
        assert isinstance(await socket.next(), AcceptConnection)
        await socket.send(Message(data=b"hello"))
        await socket.until(b"HELLO")
        await socket.send(Message(data='{"eof": true}'))
        await socket.until(b"bye")
        event = await socket.next()
        assert isinstance(event, TextMessage)
        assert msgspec.json.decode(event.data) == {"eof": True}
        assert isinstance(await socket.next(), CloseConnection)


@pytest.mark.parametrize(
    ("path", "status"), [("/ports/1", 404), ("/ports/70000", 404), ("/commands/4000000/socket", 404)]
)
async def test_a_socket_to_nothing_is_refused_in_the_handshake(box: Box, path: str, status: int) -> None:
    async with open_socket(box, path) as socket:
        event = await socket.next()
        assert isinstance(event, RejectConnection)
        assert event.status_code == status


async def test_a_slow_reader_stops_nobody_else(box: Box) -> None:
    pid = (await box.command("yes | head -c 30000000; sleep 60", background=True))["pid"]
    async with open_exchange(box.address, "GET", f"{box.path}/commands/{pid}/events", deadline_s=20):
        assert (await box.run("6 * 7"))["results"][0]["data"]["text/plain"] == "42"
        assert (await box.command("echo on"))["stdout"] == "on\n"


async def test_killing_under_streams_ends_them_with_the_reason(box: Box) -> None:
    pid = (await box.command("sleep 60", background=True))["pid"]
    async with open_socket(box, f"/commands/{pid}/socket") as socket:
        assert isinstance(await socket.next(), AcceptConnection)
        async with anyio.create_task_group() as tasks:
            ends: list[Any] = []

            async def follow() -> None:
                ends.append((await box.done("GET", f"/commands/{pid}/events"))[-1])

            async def wait() -> None:
                ends.append(await box.ask("POST", "/commands", {"cmd": "sleep 60"}))

            tasks.start_soon(follow)
            tasks.start_soon(wait)
            await anyio.sleep(0.3)
            await box.done("DELETE", "")
        codes = {end["end"]["failure"]["code"] if isinstance(end, dict) else end[1]["error"]["code"] for end in ends}
        assert codes == {"sandbox_ended"}
        assert isinstance(await socket.next(), CloseConnection)


async def test_metrics_say_what_is_used(box: Box) -> None:
    metrics = await box.done("GET", "/metrics")
    assert metrics["mem_total_bytes"] > metrics["mem_used_bytes"] > 0
    assert metrics["processes"] > 0
