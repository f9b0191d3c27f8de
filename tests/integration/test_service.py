"""The whole service without a VM: command line and client, HTTP, the node, the scan, the real agent as a process."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mayfly import run
from mayfly.errors import CapacityError, InvalidRequestError, SetupError
from mayfly.host.eventloop import open_portal
from mayfly.model import Accepted, Execution, ExecutionId, Finding, Verdict
from mayfly.node.admission import Admission
from mayfly.node.gate import Gate, load_policies
from mayfly.node.sandboxes import open_sandboxes
from mayfly.node.service import Node
from mayfly.node.store import ExecutionStore
from mayfly.scan.manifest import Manifest
from mayfly.scan.policy import Policy, builtin_policy, policy_names
from mayfly.testing import FakeLauncher, Faults
from mayfly.testing.nodes import open_server
from mayfly.validation import make_request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from mayfly.vmm.launcher import Machine, MachineSpec

MAYFLY = [sys.executable, "-m", "mayfly"]


class Service:
    def __init__(self, node: Node, launcher: FakeLauncher, address: str) -> None:
        self.node = node
        self.launcher = launcher
        self.address = address

    def census(self) -> list[int]:
        """Processes of machines that still live."""
        return [machine.pid for machine in self.launcher.launched if Path(f"/proc/{machine.pid}").exists()]


class _WordScanner:
    """Finds what the tests write into their programs."""

    async def scan(self, code: bytes, *_: object) -> Verdict:
        if b"DENY" in code:
            return Verdict(verdict="deny")
        if b"REVIEW" in code:
            finding = Finding(rule="MF-TEST-001", severity="medium", message="look", line=1, column=1)
            return Verdict(verdict="review", findings=(finding,))
        return Verdict(verdict="allow", capabilities=("threads",) if b"THREADS" in code else ())


_ASKING = Policy(name="asking", review="ask")
_MANIFEST = Manifest(image="python", python="3.13")


@asynccontextmanager
async def open_service(directory: Path) -> AsyncIterator[Service]:
    async with anyio.create_task_group() as group:
        launcher = FakeLauncher(group)
        admission = Admission(mem_mib=2048, vcpus=2, machines=4, queue=1, wait_s=0.5)
        with ExecutionStore(directory / "db") as store:
            policies = {name: builtin_policy(name) for name in policy_names()} | {"asking": _ASKING}
            gate = Gate(_WordScanner(), _MANIFEST, policies)  # type: ignore[arg-type]
            node = Node(launcher, gate, store, admission, version="0.1.0")
            async with (
                open_sandboxes(launcher, gate, admission, directory / "sandboxes.db") as node.sandboxes,
                open_server(node, unix_socket=directory / "n"),
            ):
                yield Service(node, launcher, f"unix:{directory / 'n'}")
        group.cancel_scope.cancel()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    directory = tmp_path_factory.mktemp("service")
    with (
        open_portal() as portal,
        portal.wrap_async_context_manager(open_service(directory)) as service,
    ):
        yield service


@pytest.fixture(autouse=True)
def _surroundings(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("MAYFLY_HOME", str(tmp_path))
    monkeypatch.setenv("MAYFLY_NODE", service.address)
    service.launcher.faults = Faults()
    yield
    assert service.census() == [], "machines are left after the test"


def mayfly(*args: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*MAYFLY, *args], input=stdin, capture_output=True, timeout=60, check=False)


def test_a_program_runs_through_every_stage() -> None:
    execution = run("print(6 * 7)")
    assert (execution.status, execution.exit_code, execution.stdout) == ("succeeded", 0, "42\n")
    assert [stage.name for stage in execution.stages] == ["scan", "launch", "greet", "execute", "collect", "destroy"]
    assert execution.host is not None
    assert execution.host.kind == "fake"


def test_output_streams_while_the_program_runs() -> None:
    heard: list[str] = []
    execution = run("import time\nprint('a', flush=True)\ntime.sleep(0.2)\nprint('b')", on_stdout=heard.append)
    assert len(heard) == 2
    assert "".join(heard) == execution.stdout == "a\nb\n"


def test_the_command_line_carries_input_output_and_exit_code() -> None:
    code = "import sys\ndata = sys.stdin.buffer.read()\nsys.stdout.buffer.write(data[::-1])\nsys.exit(len(data))"
    done = mayfly("run", "-c", code, stdin=b"\xff\x00abc")
    assert (done.returncode, done.stdout, done.stderr) == (5, b"cba\x00\xff", b"")


def test_large_input_and_output_pass_unharmed() -> None:
    data = os.urandom(400_000)
    done = mayfly(
        "run", "-c", "import sys, shutil\nshutil.copyfileobj(sys.stdin.buffer, sys.stdout.buffer)", stdin=data
    )
    assert (done.returncode, done.stdout == data) == (0, True)


def test_bash_with_arguments_and_environment() -> None:
    done = mayfly("run", "--lang", "bash", "--env", "WHO=you", "-c", 'echo "$1 $WHO"; exit 9', "--", "hello")
    assert (done.returncode, done.stdout) == (9, b"hello you\n")


def test_a_timeout_is_124_with_what_was_written_before() -> None:
    done = mayfly("run", "--timeout", "0.5", "-c", "print('early', flush=True)\nwhile True: pass")
    assert (done.returncode, done.stdout) == (124, b"early\n")
    assert b"stopped after 0.5 s" in done.stderr


def test_a_refused_program_is_126_and_nothing_is_launched(service: Service) -> None:
    before = len(service.launcher.launched)
    done = mayfly("run", "-c", "print('DENY')")
    assert (done.returncode, done.stdout) == (126, b"")
    assert len(service.launcher.launched) == before


def test_json_has_the_result_of_the_agent() -> None:
    done = mayfly("run", "--json", "-c", "import sys\nprint('x')\nsys.exit(3)")
    execution = json.loads(done.stdout)
    assert (done.returncode, execution["exit_code"], execution["stdout"]) == (3, 3, "x\n")
    assert execution["usage"]["wall_ms"] > 0


@pytest.mark.parametrize(
    ("faults", "status", "code"),
    [
        (Faults(launch_fails=True), "error", 125),
        (Faults(dies_at_exec=True), "agent_lost", 125),
        (Faults(drops_exec=True), "agent_lost", 125),
        (Faults(answer_to_exec=b"\xff" * 64), "agent_lost", 125),
    ],
    ids=["launch fails", "machine dies", "agent leaves", "agent sends garbage"],
)
def test_what_breaks_under_a_program_is_a_result_of_125(
    service: Service, faults: Faults, status: str, code: int
) -> None:
    service.launcher.faults = faults
    execution = run("print(1)")
    assert (execution.status, execution.exit_code) == (status, code)
    assert execution.error is not None
    done = mayfly("run", "-c", "print(1)")
    assert (done.returncode, done.stdout) == (code, b"")
    assert done.stderr.startswith(b"mayfly: ")


def test_a_client_that_is_killed_takes_its_machine_with_it(service: Service) -> None:
    before = len(service.launcher.launched)
    with subprocess.Popen(
        [*MAYFLY, "run", "-c", "import time\nprint('up', flush=True)\ntime.sleep(60)"], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        assert len(service.launcher.launched) == before + 1
        process.kill()
    machine = service.launcher.launched[-1]
    _eventually(machine.exited.is_set)
    _eventually(lambda: not service.census())


def test_more_than_the_machine_has_is_refused_by_name() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        run("print(1)", mem_mib=16384)
    assert caught.value.field == "limits.mem_mib"
    done = mayfly("run", "--mem", "16384", "-c", "print(1)")
    assert done.returncode == 2
    assert b"--mem" in done.stderr


def test_a_full_node_says_when_to_come_again(service: Service) -> None:
    sleeper = "import time\nprint('up', flush=True)\ntime.sleep(60)"
    holders = [
        subprocess.Popen([*MAYFLY, "run", "-c", sleeper], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        for _ in range(4)
    ]
    try:
        for holder in holders:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"up\n"
        with pytest.raises(CapacityError) as caught:
            run("print(1)")
        assert caught.value.retry_after_s > 0
    finally:
        for holder in holders:
            holder.kill()
            holder.communicate()
    _eventually(lambda: not service.census())


def test_the_result_is_remembered(service: Service) -> None:
    from mayfly.client.address import parse_address
    from mayfly.client.core import NodeClient

    execution = run("print('again')")
    found = anyio.run(NodeClient(parse_address(service.address)).find, execution.id)
    assert found == execution


@pytest.mark.parametrize(("path", "schema"), [("/healthz", "Health"), ("/v1/host", "Host")])
def test_the_node_describes_itself_as_the_protocol_says(service: Service, path: str, schema: str) -> None:
    import yaml
    from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

    from mayfly.client.address import parse_address
    from mayfly.client.core import NodeClient

    client = NodeClient(parse_address(service.address))
    answer = anyio.run(client.health if path == "/healthz" else client.host)
    specification = yaml.safe_load((Path(__file__).parents[2] / "protocol" / "openapi.yaml").read_text())
    described = {"$ref": f"#/components/schemas/{schema}", "components": specification["components"]}
    Draft202012Validator(described).validate(answer)
    known = specification["components"]["schemas"][schema]["properties"]
    assert set(answer) <= set(known), "the node says what the protocol does not"


def _eventually(condition: Any) -> None:
    from threading import Event

    for _ in range(2000):
        if condition():
            return
        Event().wait(0.01)
    pytest.fail("did not happen within 20 s")


# -- the verdict in force ----------------------------------------------------------------------------------


def test_a_policy_that_asks_runs_a_program_only_with_its_findings_approved() -> None:
    refused = run("print('REVIEW')", policy="asking")
    assert (refused.status, refused.exit_code, refused.stdout) == ("denied", 126, "")
    assert refused.error is not None
    assert "MF-TEST-001@1:1" in refused.error.message
    assert run("print('REVIEW')", policy="asking", approve=["MF-OTHER-001@1:1"]).status == "denied"
    assert run("print('REVIEW')", policy="asking", approve=["MF-TEST-001@1:1"]).stdout == "REVIEW\n"


def test_approval_never_lifts_a_denial() -> None:
    assert run("print('DENY')", approve=["MF-TEST-001@1:1"], policy="asking").status == "denied"


def test_a_review_runs_under_the_default_policy() -> None:
    assert run("print('REVIEW')").status == "succeeded"


def test_an_unknown_policy_names_those_there_are() -> None:
    with pytest.raises(InvalidRequestError, match="asking, default, research, strict") as caught:
        run("1", policy="nothing")
    assert caught.value.field == "policy"


def test_the_machine_is_narrowed_to_what_the_program_shows() -> None:
    plain, threads = run("1"), run("'THREADS'")
    assert plain.shape is not None
    assert threads.shape is not None
    assert plain.shape.pids < threads.shape.pids
    assert plain.shape.narrowed_by == ("proc",)
    assert threads.shape.narrowed_by == ()
    own = run("1", pids=5).shape
    assert own is not None
    assert own.pids == 5  # a caller's own limit is never raised


def test_the_operators_policies_are_files_named_after_them(tmp_path: Path) -> None:
    (tmp_path / "team.toml").write_text('name = "team"\nreview = "deny"\n')
    assert load_policies(tmp_path, None)["team"].review == "deny"
    assert set(load_policies(tmp_path, ("team", "strict"))) == {"team", "strict"}
    with pytest.raises(SetupError, match="nothing"):
        load_policies(tmp_path, ("nothing",))
    (tmp_path / "other.toml").write_text('name = "team"\n')
    with pytest.raises(SetupError, match="calls itself"):
        load_policies(tmp_path, None)
    (tmp_path / "other.toml").write_text("revew = 1\n")
    with pytest.raises(SetupError, match=r"other\.toml"):
        load_policies(tmp_path, None)


def test_ps_shows_what_the_node_runs_and_keeps() -> None:
    done = subprocess.run([*MAYFLY, "ps"], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith("fake host")
    assert "0 running" in done.stdout
    as_json = subprocess.run([*MAYFLY, "ps", "--json"], capture_output=True, text=True, timeout=60, check=True)
    assert set(json.loads(as_json.stdout)) == {"host", "pool", "sandboxes"}


def test_an_image_that_is_not_here_is_refused_by_name_with_those_there_are(service: Service) -> None:
    with pytest.raises(InvalidRequestError, match="image must be one of python, not 'node'") as caught:
        run("print(1)", image="node")
    assert caught.value.field == "image"
    assert run("print(1)", image="python").stdout == "1\n"


def test_fifty_that_run_when_the_node_stops_all_end_and_are_gone(tmp_path: Path) -> None:
    async def work() -> None:
        async with anyio.create_task_group() as group:
            launcher = FakeLauncher(group, agent_deadline_s=60.0)
            admission = Admission(mem_mib=1 << 16, vcpus=2, machines=50)
            with ExecutionStore(tmp_path / "db") as store:
                gate = Gate(_WordScanner(), _MANIFEST, {"default": builtin_policy("default")})  # type: ignore[arg-type]
                node = Node(launcher, gate, store, admission, version="0.1.0")
                ended: list[str] = []
                ids: list[ExecutionId] = []

                async def heard(event: object) -> None:
                    if isinstance(event, Accepted):
                        ids.append(event.id)

                async def one() -> None:
                    limits = {"timeout_s": 120}
                    values = {"code": "read; echo end", "lang": "bash", "stdin_stream": True, "limits": limits}
                    ended.append((await node.execute(make_request(values), on_event=heard)).stdout)

                async with anyio.create_task_group() as runs:
                    for _ in range(50):
                        runs.start_soon(one)
                    with anyio.fail_after(60):
                        while len(ids) < 50:  # noqa: ASYNC110 - the node has no event for it
                            await anyio.sleep(0.02)
                    node.drain()
                    with pytest.raises(CapacityError, match="shutting down"):
                        await node.execute(make_request({"code": "print(1)"}))
                    for execution_id in ids:
                        await node.feed_stdin(execution_id, b"", eof=True)
                assert ended == ["end\n"] * 50
                assert node.running == 0
            assert not [machine for machine in launcher.launched if Path(f"/proc/{machine.pid}").exists()]
            group.cancel_scope.cancel()

    anyio.run(work)


def test_a_program_whose_machine_never_comes_does_not_hold_up_the_nodes_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mayfly.node.service._LAUNCH_AFTER_STOP_S", 0.01)

    async def work() -> None:
        async with anyio.create_task_group() as group:
            launching, given_up = anyio.Event(), []

            class Hanging(FakeLauncher):
                async def launch(self, spec: MachineSpec) -> Machine:
                    launching.set()
                    try:
                        await anyio.sleep_forever()
                    finally:
                        given_up.append(spec.id)
                    raise AssertionError

            gate = Gate(_WordScanner(), _MANIFEST, {"default": builtin_policy("default")})  # type: ignore[arg-type]
            with ExecutionStore(tmp_path / "db") as store:
                admission = Admission(mem_mib=2048, vcpus=2, machines=1)
                node = Node(Hanging(group), gate, store, admission, version="0.1.0")
                results: list[Execution] = []
                refusals: list[CapacityError] = []

                async def one() -> None:
                    try:
                        results.append(await node.execute(make_request({"code": "print(1)"})))
                    except CapacityError as error:
                        refusals.append(error)

                with anyio.fail_after(30):
                    async with anyio.create_task_group() as runs:
                        runs.start_soon(one)
                        await launching.wait()
                        runs.start_soon(one)  # there is one place: it waits for room
                        await anyio.wait_all_tasks_blocked()
                        node.drain()
            (result,), (refusal,) = results, refusals
            assert result.status == "error"
            assert result.error is not None
            assert (result.error.code, result.error.retryable) == ("capacity", True)
            assert "shutting down" in refusal.message
            assert given_up == [result.id]
            group.cancel_scope.cancel()

    anyio.run(work)


@pytest.mark.parametrize("step_s", [86400.0, -86400.0], ids=["forward", "back"])
def test_a_stepped_clock_of_the_host_ends_nothing_early_or_late(
    service: Service, monkeypatch: pytest.MonkeyPatch, step_s: float
) -> None:
    real, calls = time.time, itertools.count()

    def stepping() -> float:
        return real() + (step_s if next(calls) else 0.0)

    monkeypatch.setattr(time, "time", stepping)
    execution = run("import time\ntime.sleep(0.3)\nprint('whole')", timeout_s=20)
    assert (execution.status, execution.stdout) == ("succeeded", "whole\n")
    assert all(0 <= stage.ms < 20_000 for stage in execution.stages)
    assert run("while True: pass", timeout_s=0.5).status == "timeout"
