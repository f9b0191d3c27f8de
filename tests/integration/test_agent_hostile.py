"""Peers that break the protocol: each is refused with a typed answer, and the agent serves the next one."""

from __future__ import annotations

import contextlib
import json
import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mayfly.guest.frames import PAYLOAD_MAX_BYTES, FrameType, encode
from mayfly.testing.agent import AgentProcess, agent_process, exec_frames

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROOT = Path(__file__).resolve().parents[2]
_VECTORS = json.loads((_ROOT / "protocol" / "vectors" / "guest-frames.json").read_text())
_LIMITS = {"timeout_s": 5.0, "cpu_s": None, "pids": 8, "mem_bytes": None, "output_bytes": 100}
_GOOD: dict[str, Any] = {
    "nonce": "n",
    "lang": "python",
    "filename": "main.py",
    "program_bytes": 4,
    "args": [],
    "env": {},
    "stdin": False,
    "limits": _LIMITS,
}


@pytest.fixture(scope="module")
def agent() -> Iterator[AgentProcess]:
    with agent_process() as agent:
        yield agent


def _error(agent: AgentProcess, wire: bytes) -> dict[str, Any]:
    frames = agent.ask(wire)
    assert [frame.type for frame in frames] == [FrameType.ERROR]
    return frames[0].json()


@pytest.mark.parametrize(
    "vector",
    [v for v in _VECTORS["bad_frames"] if v["direction"] == "from_host"],
    ids=lambda vector: vector["name"],
)
def test_golden_bad_frames_are_refused(agent: AgentProcess, vector: dict[str, Any]) -> None:
    assert _error(agent, bytes.fromhex(vector["hex"]))["code"] == "bad_frame"


@pytest.mark.parametrize("vector", _VECTORS["bad_json"], ids=lambda vector: vector["name"])
def test_golden_bad_json_is_refused(agent: AgentProcess, vector: dict[str, Any]) -> None:
    payload = bytes.fromhex(vector["hex"])[8:]
    assert _error(agent, encode(FrameType.EXEC, payload))["code"] == "bad_frame"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"lang": "ruby"}, "lang"),
        ({"lang": None}, "lang"),
        ({"filename": "../x"}, "filename"),
        ({"filename": ""}, "filename"),
        ({"filename": "-c"}, "filename"),
        ({"filename": ".x"}, "filename"),
        ({"filename": "x" * 65}, "filename"),
        ({"filename": "a\0b"}, "filename"),
        ({"program_bytes": -1}, "program_bytes"),
        ({"program_bytes": 1 << 30}, "program_bytes"),
        ({"program_bytes": True}, "program_bytes"),
        ({"args": "x"}, "args"),
        ({"args": [1]}, "args"),
        ({"args": ["a\0b"]}, "args"),
        ({"env": []}, "env"),
        ({"env": {"a=b": "1"}}, "env"),
        ({"env": {"A": 1}}, "env"),
        ({"env": {"": "1"}}, "env"),
        ({"nonce": 5}, "nonce"),
        ({"limits": None}, "limits"),
        ({"limits": _LIMITS | {"timeout_s": -1}}, "timeout_s"),
        ({"limits": _LIMITS | {"timeout_s": "5"}}, "timeout_s"),
        ({"limits": _LIMITS | {"pids": 0}}, "pids"),
        ({"limits": _LIMITS | {"mem_bytes": 1}}, "mem_bytes"),
        ({"limits": _LIMITS | {"output_bytes": -5}}, "output_bytes"),
        ({"limits": _LIMITS | {"cpu_s": []}}, "cpu_s"),
    ],
    ids=str,
)
def test_wrong_fields_are_named(agent: AgentProcess, change: dict[str, Any], field: str) -> None:
    error = _error(agent, encode(FrameType.EXEC, _GOOD | change))
    assert error["code"] == "bad_request"
    assert error["message"].startswith(f"{field}:")


@pytest.mark.parametrize(
    "change",
    [{"entropy": "AAAA"}, {"entropy": "!"}, {"unix_ns": -1}, {"hostname": "x" * 65}, {"machine_id": "zz" * 16}],
    ids=str,
)
def test_wrong_greetings_are_refused(agent: AgentProcess, change: dict[str, Any]) -> None:
    good = {"entropy": "A" * 44, "unix_ns": 1, "hostname": "h", "machine_id": "0" * 32}
    assert _error(agent, encode(FrameType.GREET, good | change))["code"] == "bad_request"


@pytest.mark.parametrize(
    "wire",
    [
        encode(FrameType.STDIN, b"x"),
        encode(FrameType.PROGRAM, b"x"),
        encode(FrameType.SIGNAL, {"signal": "SIGINT"}),
        encode(FrameType.EXEC, _GOOD) + encode(FrameType.STDIN, b"x"),
        encode(FrameType.EXEC, _GOOD) + encode(FrameType.PROGRAM, b"12345"),
        encode(FrameType.EXEC, _GOOD) + encode(FrameType.EXEC, _GOOD),
    ],
    ids=["stdin first", "program first", "signal first", "stdin before program", "too much program", "exec twice"],
)
def test_frames_out_of_order_are_refused(agent: AgentProcess, wire: bytes) -> None:
    assert _error(agent, wire)["code"] == "bad_request"


@pytest.mark.parametrize(
    "wire",
    [
        encode(FrameType.STDIN, b"x"),
        encode(FrameType.SIGNAL, {"signal": "SIGSTOP"}),
        encode(FrameType.SIGNAL, {}),
        encode(FrameType.PROGRAM, b"x"),
        encode(FrameType.PING, {}),
        b"\xff" * 8,
    ],
    ids=["stdin unannounced", "signal unknown", "signal missing", "more program", "ping", "garbage"],
)
def test_a_breach_while_a_program_runs_ends_the_program(agent: AgentProcess, wire: bytes) -> None:
    frames = agent.ask(exec_frames(b"import time\ntime.sleep(100)") + wire)
    assert frames[-1].type == FrameType.ERROR
    assert agent.answers()


def test_a_program_cannot_write_frames(agent: AgentProcess) -> None:
    forged = encode(FrameType.EXIT, {"nonce": "nonce-of-this-test", "reason": "exit", "exit_code": 0})
    result = agent.run(f"import os\nos.write(1, {forged!r})\nos._exit(3)")
    assert (result.stdout, result.exit_code) == (forged, 3)


def test_no_room_to_write_the_program_is_told(agent: AgentProcess) -> None:
    agent.run("rm -rf main.py; mkdir main.py", lang="bash", filename="x.sh")
    assert (agent.run("pass").error or {})["code"] == "start_failed"
    agent.run("rm -rf main.py main.sh; mkdir main.sh", lang="bash", filename="x.sh")
    assert (agent.run("true", lang="bash").error or {})["code"] == "start_failed"
    agent.run("rmdir main.sh", lang="bash", filename="x.sh")


def test_connections_that_say_nothing_are_bounded_and_cost_no_descriptors(agent: AgentProcess) -> None:
    before = len(os.listdir(f"/proc/{agent.pid}/fd"))
    with contextlib.ExitStack() as idle:
        for _ in range(400):
            idle.enter_context(agent.connect())
        assert len(os.listdir(f"/proc/{agent.pid}/fd")) <= before + 256
    assert agent.answers()


def test_half_a_frame_does_not_hold_up_others(agent: AgentProcess) -> None:
    with agent.connect() as connection:
        connection.sendall(struct.pack("!B3xI", FrameType.EXEC, PAYLOAD_MAX_BYTES) + b"{")
        assert agent.run("print(1)").stdout == b"1\n"


def test_the_largest_frame_is_taken(agent: AgentProcess) -> None:
    program = b"#" * (PAYLOAD_MAX_BYTES * 3) + b"\nprint('end')"
    assert agent.run(program).stdout == b"end\n"


@given(st.binary(min_size=1, max_size=300))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_agent_survives_any_bytes(agent: AgentProcess, garbage: bytes) -> None:
    with agent.connect() as connection:
        connection.sendall(garbage)
    assert agent.answers()


@given(st.dictionaries(st.sampled_from(sorted(_GOOD)), st.none() | st.integers() | st.text() | st.lists(st.none())))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_shape_of_request_gets_a_typed_answer(agent: AgentProcess, change: dict[str, Any]) -> None:
    with agent.connect() as connection:
        try:
            connection.sendall(encode(FrameType.EXEC, _GOOD | change))
        except ValueError:
            return  # an integer beyond 64 bits, which the codec itself refuses elsewhere
    assert agent.answers()


_OPERATIONS = [
    "context_create",
    "context_list",
    "context_restart",
    "context_remove",
    "context_interrupt",
    "run",
    "metrics",
    "file_stat",
    "file_list",
    "file_mkdir",
    "file_rename",
    "file_remove",
    "file_read",
    "file_write",
    "file_watch",
    "process_start",
    "process_attach",
    "process_list",
    "process_signal",
    "process_resize",
    "process_input",
    "port",
]
_FIELDS = ["context", "nonce", "path", "to", "pid", "offset", "length", "depth", "port", "argv", "shell", "cwd", "env"]
_VALUES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.text(max_size=20)
    | st.lists(st.text(max_size=5), max_size=3)
    | st.dictionaries(st.text(max_size=5), st.integers(0, 9), max_size=3)
)


@given(st.sampled_from(_OPERATIONS), st.dictionaries(st.sampled_from(_FIELDS), _VALUES))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_arguments_of_any_operation_get_an_answer(agent: AgentProcess, op: str, args: dict[str, Any]) -> None:
    with agent.connect() as connection:
        connection.sendall(encode(FrameType.CALL, {"op": op, "args": args}))
        connection.sendall(encode(FrameType.PIECE, b"x"))
    assert agent.answers()


@pytest.mark.parametrize(
    ("call", "word"),
    [
        ({}, "op"),
        ({"op": "nothing"}, "op"),
        ({"op": "file_stat", "args": []}, "args"),
        ({"op": "file_stat", "args": {}}, "path"),
        ({"op": "file_stat", "args_bytes": 1 << 30}, "args_bytes"),
        ({"op": "run", "args": {"context": "none"}}, "no context"),
        ({"op": "process_attach", "args": {"pid": 1, "offset": 0}}, "no process"),
        ({"op": "process_start", "args": {"shell": "x", "pids": 0, "buffer_bytes": 0}}, "pids"),
        ({"op": "context_create", "args": {"lang": "cobol"}}, "lang"),
    ],
)
def test_wrong_calls_are_refused_by_name(agent: AgentProcess, call: dict[str, Any], word: str) -> None:
    assert word in _error(agent, encode(FrameType.CALL, call))["message"]


def test_arguments_that_do_not_fit_a_frame_come_after_it(agent: AgentProcess) -> None:
    env = {"A": "x" * 100_000, "B": "y" * 100_000}
    args = json.dumps({"shell": "true", "env": env, "pids": 64, "buffer_bytes": 0}).encode()
    wire = encode(FrameType.CALL, {"op": "process_start", "args_bytes": len(args)})
    for start in range(0, len(args), PAYLOAD_MAX_BYTES):
        wire += encode(FrameType.PROGRAM, args[start : start + PAYLOAD_MAX_BYTES])
    assert [frame.type for frame in agent.ask(wire)] == [FrameType.STARTED, FrameType.EXIT]
