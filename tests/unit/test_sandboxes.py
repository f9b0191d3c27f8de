"""The life of sandboxes on a node, over HTTP: made, found, ended, lost; with a guest that follows a script."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import msgspec
import pytest

from mayfly.client.address import NodeAddress
from mayfly.client.http import open_exchange
from mayfly.errors import VmmTimeoutError
from mayfly.guest.shapes import CodeEnd, CodeOutput
from mayfly.model import Verdict
from mayfly.node.code_run import CodeRun
from mayfly.node.event_log import EventLog
from mayfly.node.sandbox_store import SandboxStore
from mayfly.sandbox_model import CodeResult, RunCode, RunId, SandboxId, SandboxInfo
from mayfly.server import lines
from mayfly.testing.nodes import open_server
from mayfly.testing.scripted_guest import BareLauncher, ScriptedGuest
from mayfly.testing.service import Service, open_service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.anyio


class WordScanner:
    async def scan(self, code: bytes, *_: object) -> Verdict:
        if b"%magic" in code and b"pass  #" not in code:
            return Verdict(verdict="unparseable", parse="syntax: SyntaxError: invalid syntax")
        return Verdict(verdict="deny" if b"DENY" in code else "allow")


class Caller:
    def __init__(self, service: Service, launcher: BareLauncher) -> None:
        self.service = service
        self.launcher = launcher
        self.address = NodeAddress(unix_socket=service.unix_socket)

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        content = b"" if body is None else msgspec.json.encode(body)
        given = {"Content-Type": "application/json", **headers}
        async with open_exchange(
            self.address, method, "/v1/sandboxes" + path, headers=given, content=content, deadline_s=20
        ) as answer:
            raw = await answer.read(limit_bytes=1 << 26, deadline_s=20)
            if answer.headers.get("content-type") == "application/x-ndjson":
                return answer.status, [msgspec.json.decode(line) for line in raw.splitlines() if line]
            return answer.status, msgspec.json.decode(raw) if raw else None

    async def make(self, **values: Any) -> str:
        status, info = await self.ask("POST", "", values)
        assert status == 201, info
        assert info["state"] == "running"
        return str(info["id"])

    async def run(self, sandbox: str, code: str, **values: Any) -> dict[str, Any]:
        status, execution = await self.ask("POST", f"/{sandbox}/runs", {"code": code, **values})
        assert status == 200, execution
        return dict(execution)

    async def ended(self, sandbox: str) -> dict[str, Any]:
        with anyio.fail_after(10):
            while (await self.ask("GET", f"/{sandbox}"))[1]["state"] == "running":  # noqa: ASYNC110 - as a caller does
                await anyio.sleep(0.01)
        return dict((await self.ask("GET", f"/{sandbox}"))[1])


@asynccontextmanager
async def opened(directory: Path, machines: int = 8) -> AsyncIterator[Caller]:
    launcher = BareLauncher(directory)
    async with open_service(
        directory,
        machines=machines,
        scanner=WordScanner(),
        launcher=launcher,
        guest_of=ScriptedGuest,  # type: ignore[arg-type]
    ) as service:
        yield Caller(service, launcher)
    assert all(machine.destroyed for machine in launcher.machines)


@pytest.fixture
async def caller(tmp_path: Path) -> AsyncIterator[Caller]:
    async with opened(tmp_path) as caller:
        yield caller


async def test_a_sandbox_is_made_found_listed_and_killed(caller: Caller) -> None:
    sandbox = await caller.make(metadata={"task": "42"}, timeout_s=100)
    status, info = await caller.ask("GET", f"/{sandbox}")
    assert (status, info["metadata"], info["timeout_s"]) == (200, {"task": "42"}, 100)
    assert [stage["name"] for stage in info["stages"]] == ["launch", "greet", "context"]
    _, listed = await caller.ask("GET", "?state=running")
    assert [one["id"] for one in listed["sandboxes"]] == [sandbox]
    status, info = await caller.ask("DELETE", f"/{sandbox}")
    assert (status, info["state"], info["reason"]) == (200, "ended", "it was killed")
    assert caller.launcher.machines[0].destroyed
    assert (await caller.ask("GET", "?state=running"))[1] == {"sandboxes": []}
    assert (await caller.ask("DELETE", f"/{sandbox}"))[0] == 200


async def test_code_gives_output_results_and_errors_in_order(caller: Caller) -> None:
    sandbox = await caller.make()
    execution = await caller.run(sandbox, "out hello\nresult 42\nraise ValueError")
    assert execution["status"] == "failed"
    assert execution["stdout"] == "hello"
    assert execution["results"][0]["data"] == {"text/plain": "42"}
    assert execution["error"]["name"] == "ValueError"
    _, events = await caller.ask("POST", f"/{sandbox}/runs?stream=true", {"code": "out a\nresult 1"})
    assert [event["offset"] for event in events] == list(range(len(events)))
    assert [event["event"] for event in events] == ["accepted", "stage", "output", "result", "stage", "finished"]


async def test_a_run_goes_on_without_its_client_and_is_picked_up_at_an_offset(caller: Caller) -> None:
    sandbox = await caller.make()
    body = msgspec.json.encode({"code": "out one\nsleep 0.3\nout two"})
    async with open_exchange(
        caller.address,
        "POST",
        f"/v1/sandboxes/{sandbox}/runs?stream=true",
        headers={"Content-Type": "application/json"},
        content=body,
        deadline_s=10,
    ) as answer:
        lines = answer.lines(limit_bytes=1 << 20, deadline_s=10)
        first = msgspec.json.decode(await anext(lines))
        await lines.aclose()
    path = f"/{sandbox}/runs/{first['id']}"
    _, rest = await caller.ask("GET", f"{path}/events?from=2")
    assert [event["text"] for event in rest if event["event"] == "output"] == ["one", "two"]
    assert rest[-1]["execution"]["stdout"] == "onetwo"
    _, again = await caller.ask("GET", f"{path}/events?from={rest[-1]['offset']}")
    assert [event["event"] for event in again] == ["finished"]
    assert (await caller.ask("GET", path))[1]["stdout"] == "onetwo"


async def test_many_tiny_outputs_are_gathered_and_none_is_lost(caller: Caller) -> None:
    sandbox = await caller.make()
    _, events = await caller.ask("POST", f"/{sandbox}/runs?stream=true", {"code": "tiny 20000"})
    assert len(events) < 6000
    assert events[-1]["execution"]["stdout"] == "." * 20000


async def test_killing_a_sandbox_ends_what_runs_in_it_with_the_reason(caller: Caller) -> None:
    sandbox = await caller.make()
    async with anyio.create_task_group() as tasks:
        found: list[Any] = []

        async def run() -> None:
            found.append(await caller.run(sandbox, "hang"))

        tasks.start_soon(run)
        await anyio.sleep(0.1)
        await caller.ask("DELETE", f"/{sandbox}")
    assert found[0]["status"] == "error"
    assert found[0]["failure"]["code"] == "sandbox_ended"
    assert found[0]["failure"]["sandbox_id"] == sandbox
    status, answer = await caller.ask("POST", f"/{sandbox}/runs", {"code": "1"})
    assert (status, answer["error"]["code"], answer["error"]["sandbox_id"]) == (410, "sandbox_ended", sandbox)


@pytest.mark.parametrize(
    ("times", "why"), [({"timeout_s": 1}, "its time of 1 s"), ({"idle_timeout_s": 1}, "it was idle: nobody")]
)
async def test_a_sandbox_ends_by_its_times(caller: Caller, times: dict[str, float], why: str) -> None:
    info = await caller.ended(await caller.make(**times))
    assert info["state"] == "ended"
    assert info["reason"].startswith(why)


async def test_a_run_in_progress_keeps_a_sandbox_from_being_idle(caller: Caller) -> None:
    sandbox = await caller.make(idle_timeout_s=1)
    assert (await caller.run(sandbox, "sleep 1.6\nout there"))["stdout"] == "there"


async def test_times_can_be_changed_from_now_on(caller: Caller) -> None:
    sandbox = await caller.make()
    status, info = await caller.ask("POST", f"/{sandbox}/timeout", {"timeout_s": 1})
    assert (status, info["timeout_s"]) == (200, 1)
    assert (await caller.ended(sandbox))["state"] == "ended"
    assert (await caller.ask("POST", f"/{sandbox}/timeout", {"timeout_s": 1}))[0] == 410


async def test_a_machine_that_dies_is_a_lost_sandbox_with_its_last_words(caller: Caller) -> None:
    sandbox = await caller.make()
    caller.launcher.machines[0].exited.set()
    info = await caller.ended(sandbox)
    assert (info["state"], info["reason"]) == ("lost", "its microVM ended: panic: out of luck")
    assert (await caller.ask("POST", f"/{sandbox}/runs", {"code": "1"}))[1]["error"]["code"] == "sandbox_lost"


async def test_an_agent_that_goes_away_under_a_run_is_told(caller: Caller) -> None:
    sandbox = await caller.make()
    execution = await caller.run(sandbox, "out x\ndrop")
    assert (execution["status"], execution["stdout"]) == ("error", "x")
    assert execution["failure"]["code"] == "agent_lost"


async def test_lost_state_is_told_with_the_reason(caller: Caller) -> None:
    execution = await caller.run(await caller.make(), "lose")
    assert (execution["status"], execution["state_lost"]) == ("context_lost", True)
    assert execution["error"]["name"] == "ContextLost"


async def test_the_scan_refuses_code_and_commands(caller: Caller) -> None:
    sandbox = await caller.make()
    execution = await caller.run(sandbox, "DENY")
    assert (execution["status"], execution["scan"]["verdict"], execution["stdout"]) == ("denied", "deny", "")
    _, result = await caller.ask("POST", f"/{sandbox}/commands", {"cmd": "DENY"})
    assert (result["status"], result["exit_code"], result["pid"]) == ("denied", 126, None)
    _, result = await caller.ask("POST", f"/{sandbox}/commands", {"args": ["echo", "DENY"], "background": True})
    assert result["status"] == "denied"
    _, events = await caller.ask("POST", f"/{sandbox}/commands?stream=true", {"cmd": "DENY"})
    assert [(event["event"], event["end"]["status"]) for event in events] == [("ended", "denied")]


async def test_magics_are_scanned_as_what_they_do(caller: Caller) -> None:
    sandbox = await caller.make()
    assert (await caller.run(sandbox, "%magic\nout fine"))["status"] == "succeeded"
    assert (await caller.run(sandbox, "%magic\n!DENY"))["status"] == "denied"


async def test_a_sandbox_that_cannot_be_made_is_an_error_and_leaves_nothing(caller: Caller) -> None:
    caller.launcher.failure = VmmTimeoutError("told to fail")
    status, answer = await caller.ask("POST", "", {})
    assert (status, answer["error"]["code"]) == (500, "vmm_timeout")
    assert (await caller.ask("GET", ""))[1] == {"sandboxes": []}
    caller.launcher.failure = None
    await caller.make()


async def test_a_caller_that_goes_away_takes_an_unmade_sandbox_with_it(caller: Caller) -> None:
    caller.launcher.delay_s = 60
    with anyio.move_on_after(0.3):
        await caller.ask("POST", "", {})
    with anyio.fail_after(5):
        while caller.service.node.running:  # noqa: ASYNC110 - there is no event for it
            await anyio.sleep(0.01)
    assert (await caller.ask("GET", ""))[1] == {"sandboxes": []}


async def test_a_node_that_stops_ends_its_sandboxes_and_makes_no_more(caller: Caller) -> None:
    sandbox = await caller.make()
    caller.service.node.drain()
    assert (await caller.ended(sandbox))["reason"] == "the node was stopped"
    status, answer = await caller.ask("POST", "", {})
    assert (status, answer["error"]["code"]) == (503, "capacity")


async def test_a_full_node_says_so(tmp_path: Path) -> None:
    async with opened(tmp_path, machines=1) as caller:
        sandbox = await caller.make()
        status, answer = await caller.ask("POST", "", {})
        assert (status, answer["error"]["code"]) == (503, "capacity")
        await caller.ask("DELETE", f"/{sandbox}")
        await caller.make()


async def test_what_a_killed_node_held_is_listed_as_lost(tmp_path: Path) -> None:
    async with opened(tmp_path) as caller:
        stopped = await caller.make()
        info = (await caller.ask("GET", f"/{stopped}"))[1]
    killed = msgspec.structs.replace(msgspec.convert(info, SandboxInfo), id=SandboxId("sb-" + "0" * 20))
    with SandboxStore(tmp_path / "sandboxes.db") as store:
        store.put(killed)
    async with opened(tmp_path) as caller:
        listed = {one["id"]: one for one in (await caller.ask("GET", ""))[1]["sandboxes"]}
        assert (listed[stopped]["state"], listed[stopped]["reason"]) == ("ended", "the node was stopped")
        assert listed[killed.id]["state"] == "lost"
        status, answer = await caller.ask("GET", f"/{killed.id}/metrics")
        assert (status, answer["error"]["code"]) == (410, "sandbox_lost")
        assert "the node that held it" in answer["error"]["message"]


async def test_logs_tell_what_was_done(caller: Caller) -> None:
    sandbox = await caller.make()
    await caller.run(sandbox, "out printed")
    _, log = await caller.ask("GET", f"/{sandbox}/logs")
    assert [entry["text"] for entry in log["entries"]] == ["ready", "printed", "succeeded in context default"]
    assert (await caller.ask("GET", f"/{sandbox}/logs?from={log['next']}"))[1]["entries"] == []


async def test_a_silent_stream_shows_signs_of_life(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "_SILENCE_S", 0.05)
    sandbox = await caller.make()
    async with open_exchange(
        caller.address,
        "POST",
        f"/v1/sandboxes/{sandbox}/runs?stream=true",
        headers={"Content-Type": "application/json"},
        content=b'{"code": "sleep 0.5"}',
        deadline_s=10,
    ) as answer:
        raw = await answer.read(limit_bytes=1 << 20, deadline_s=10)
    assert raw.count(b"\n\n") > 2
    assert msgspec.json.decode(raw.splitlines()[-1])["event"] == "finished"


async def test_a_websocket_by_tcp_needs_the_token(caller: Caller) -> None:
    sandbox = await caller.make()
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg==",
    }
    async with open_server(caller.service.node, tcp=True, token="secret") as bound:
        assert bound.tcp is not None
        for token, status in (("wrong", 401), ("secret", 404)):
            address = NodeAddress(host="127.0.0.1", port=bound.tcp[1], token=token)
            async with open_exchange(
                address, "GET", f"/v1/sandboxes/{sandbox}/ports/9", headers=upgrade, deadline_s=10
            ) as answer:
                assert answer.status == status


BAD: dict[str, tuple[str, str, Any, int, str | None]] = {
    "no such sandbox": ("GET", "/sb-" + "a" * 20, None, 404, "id"),
    "no id": ("GET", "/other", None, 404, "id"),
    "image": ("POST", "", {"image": "windows"}, 400, "image"),
    "template": ("POST", "", {"template": "mine"}, 400, "template"),
    "time": ("POST", "", {"timeout_s": 0}, 400, "timeout_s"),
    "memory": ("POST", "", {"limits": {"mem_mib": 16384}}, 400, "limits.mem_mib"),
    "cpu time": ("POST", "", {"limits": {"cpu_s": 5}}, 400, "limits.cpu_s"),
    "policy": ("POST", "", {"policy": "none"}, 400, "policy"),
    "newline": ("POST", "", {"envs": {"A\n": "x"}}, 400, "name in envs"),
    "nul": ("POST", "", {"envs": {"A": "\0"}}, 400, "envs.A"),
    "metadata": ("POST", "", {"metadata": {"a": "x" * 2000}}, 400, "metadata[...]"),
    "unknown field": ("POST", "", {"imagee": "python"}, 400, "imagee"),
    "state": ("GET", "?state=asleep", None, 400, "state"),
    "context": ("POST", "/ID/runs", {"code": "1", "context": "none"}, 404, "context"),
    "language": ("POST", "/ID/runs", {"code": "1", "context": "default", "language": "bash"}, 400, "language"),
    "large": ("POST", "/ID/runs", {"code": "x" * 300_000}, 400, "code"),
    "run": ("GET", "/ID/runs/run-" + "0" * 20, None, 404, "run"),
    "offset": ("GET", "/ID/runs/run-" + "0" * 20 + "/events?from=-1", None, 404, "run"),
    "no command": ("POST", "/ID/commands", {}, 400, "cmd"),
    "two commands": ("POST", "/ID/commands", {"cmd": "a", "args": ["b"]}, 400, "cmd"),
    "pid": ("POST", "/ID/commands/0/signal", {"signal": "SIGTERM"}, 404, "pid"),
    "pid text": ("GET", "/ID/commands/%D9%A1/events", None, 404, "pid"),
    "signal": ("POST", "/ID/commands/7/signal", {"signal": "SIGNAL"}, 400, "signal"),
    "path": ("GET", "/ID/files", None, 400, "path"),
    "path with nul": ("GET", "/ID/files/info?path=a%00b", None, 400, "path"),
    "path too long": ("GET", "/ID/files/info?path=" + "%C3%A4" * 2500, None, 400, "path"),
    "mode": ("PUT", "/ID/files?path=a&mode=999", None, 400, "mode"),
    "depth": ("GET", "/ID/files/list?path=a&depth=99", None, 400, "depth"),
    "missing file": ("GET", "/ID/files/info?path=a", None, 404, None),
    "no handshake": ("GET", "/ID/ports/80", None, 426, "upgrade"),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
async def test_bad_input_gets_a_clear_answer(caller: Caller, bad: tuple[str, str, Any, int, str | None]) -> None:
    method, path, body, wanted, field = bad
    sandbox = await caller.make()
    status, answer = await caller.ask(method, path.replace("ID", sandbox), body)
    assert (status, answer["error"].get("field")) == (wanted, field), answer
    assert (await caller.run(sandbox, "out on"))["stdout"] == "on"


async def test_a_hostile_guest_fills_neither_events_nor_results() -> None:
    async with anyio.create_task_group() as group:
        request = RunCode(code="")
        run = CodeRun(RunId("run-1"), SandboxId("sb-1"), request, output_bytes=1000, start_soon=group.start_soon)
        for _ in range(40):
            await run.take(CodeResult(data={"text/plain": "x" * 1_000_000}))
            await run.take(CodeOutput(stream="stderr", data=b"\xff" * 60_000))
        run.finish_as(CodeEnd(status="ok", execution_count=1))
    assert run.execution is not None
    assert run.execution.truncated
    assert len(run.execution.results) < 20
    assert len(run.execution.stderr) == 1000


async def test_readers_of_one_stream_do_not_wait_for_each_other() -> None:
    log = EventLog()
    seen: dict[str, list[bytes]] = {"quick": [], "late": []}

    async def read(name: str, offset: int) -> None:
        async for batch in log.follow(offset):
            seen[name] += batch

    async with anyio.create_task_group() as group:
        group.start_soon(read, "quick", 0)
        for number in range(200):
            log.append(b"%d" % number)
            await anyio.lowlevel.checkpoint()
        assert len(seen["quick"]) > 150
        group.start_soon(read, "late", 190)
        log.close()
    assert seen["quick"] == [b"%d" % number for number in range(200)]
    assert seen["late"] == seen["quick"][190:]
