"""What the host takes from the agent of a sandbox: each answer that breaks the protocol is a typed error."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mayfly import errors
from mayfly.errors import AgentLostError, MayflyError, ProtocolError
from mayfly.guest.frames import FROM_HOST, FrameDecoder, FrameType, encode
from mayfly.guest.sandbox import Guest
from mayfly.guest.shapes import CodeRequest, ProcessSpec

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.anyio

_USAGE = {"wall_ms": 1.0, "cpu_ms": 1.0, "mem_peak_bytes": 1, "stdout_bytes": 0, "stderr_bytes": 0}
_END: dict[str, Any] = {
    "nonce": "n",
    "status": "ok",
    "execution_count": 1,
    "usage": _USAGE,
    "truncated": False,
    "guest_ms": 0.1,
}
_STARTED = encode(FrameType.STARTED, {"nonce": "n", "pid": 5, "offset": 0})
_FILE: dict[str, Any] = {
    "path": "/home/user/a",
    "name": "a",
    "kind": "file",
    "size": 1,
    "mode": 0o644,
    "modified_at": 1.0,
    "uid": 0,
    "gid": 0,
    "target": None,
}


@contextmanager
def _guest(path: Path, *answers: bytes) -> Iterator[Guest]:
    """A guest that hears the first frame, sends these bytes, and closes once the host has. In a thread."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, suppress(OSError):
                    connection.settimeout(20)
                    connection.recv(64)
                    connection.sendall(b"OK 1\n")
                    decoder = FrameDecoder(FROM_HOST)
                    while not decoder.feed(connection.recv(65536)):
                        pass
                    for answer in answers:
                        connection.sendall(answer)
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(65536):
                        pass

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield Guest(path, connect_deadline_s=5)
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(20)
        path.unlink()


async def _raised(path: Path, call: Callable[[Guest], Awaitable[object]], *answers: bytes) -> BaseException:
    try:
        with _guest(path, *answers) as guest:
            with anyio.fail_after(10):
                await call(guest)
    except BaseException as error:  # noqa: BLE001  the one that is asked for
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        return error
    pytest.fail("nothing was raised")


async def _run(guest: Guest) -> list[Any]:
    events: list[Any] = []

    async def on_event(event: object) -> None:
        events.append(event)

    request = CodeRequest(context_id="c", code="x", nonce="n", output_bytes=10, result_bytes=1000, timeout_s=5.0)
    events.append(await guest.run_code(request, on_event=on_event))
    return events


async def _follow(guest: Guest) -> list[Any]:
    async with guest.open_process(ProcessSpec(shell="x")) as process:
        return [event async for event in process]


async def _read(guest: Guest) -> bytes:
    async with guest.read_file("a", length=3) as pieces:
        return b"".join([piece async for piece in pieces])


def _item(kind: str, payload: bytes, size: int | None = None) -> bytes:
    return encode(FrameType.ITEM, {"kind": kind, "bytes": len(payload) if size is None else size}) + encode(
        FrameType.DATA, payload
    )


async def test_a_run_and_its_results_are_taken(tmp_path: Path) -> None:
    result = json.dumps({"data": {"text/plain": "1", "application/json": {"a": [1]}}, "is_main_result": True}).encode()
    error = json.dumps({"name": "E", "value": "v", "traceback": "t"}).encode()
    answers = _STARTED + encode(FrameType.STDOUT, b"out") + _item("result", result) + _item("error", error)
    with _guest(tmp_path / "v", answers, encode(FrameType.END, _END | {"status": "error"})) as guest:
        output, shown, raised, end = await _run(guest)
    assert (output.data, shown.data["application/json"], raised.name, end.status) == (b"out", {"a": [1]}, "E", "error")


@pytest.mark.parametrize(
    "answers",
    [
        encode(FrameType.PONG, {}),
        _STARTED + _STARTED,
        _STARTED + encode(FrameType.STDOUT, b"x" * 11),
        _STARTED + encode(FrameType.DATA, b"nothing announced it"),
        _STARTED + _item("result", b"{}"),
        _STARTED + _item("result", b"no JSON"),
        _STARTED + _item("result", b"[" * 60_000),
        _STARTED + _item("result", b'{"data": {"text/plain": 5}}'),
        _STARTED + _item("result", b'{"data": {"a": "b"}, "truncated": 5}'),
        _STARTED + _item("result", b"xx", size=1),
        _STARTED + _item("error", b'{"name": "x"}'),
        _STARTED + encode(FrameType.ITEM, {"kind": "result", "bytes": 1 << 40}),
        _STARTED + encode(FrameType.ITEM, {"kind": "surprise", "bytes": 1}),
        _STARTED + encode(FrameType.ITEM, {"kind": "result", "bytes": 0}) * 1200,
        _STARTED + encode(FrameType.END, _END | {"nonce": "another"}),
        _STARTED + encode(FrameType.END, _END | {"status": "fine"}),
        _STARTED + encode(FrameType.END, _END | {"execution_count": -1}),
        _STARTED + encode(FrameType.END, _END | {"exit_code": 256}),
        _STARTED + encode(FrameType.END, _END | {"usage": {}}),
    ],
    ids=range(19),
)
async def test_a_run_that_breaks_the_protocol_is_a_protocol_error(tmp_path: Path, answers: bytes) -> None:
    assert isinstance(await _raised(tmp_path / "v", _run, answers), ProtocolError)


async def test_an_agent_that_goes_away_is_lost(tmp_path: Path) -> None:
    for call in (_run, _follow, _read, lambda guest: guest.stat("a"), lambda guest: guest.metrics()):
        assert type(await _raised(tmp_path / "v", call)) is AgentLostError  # type: ignore[arg-type]
    assert type(await _raised(tmp_path / "v", _run, _STARTED, encode(FrameType.STDOUT, b"x"))) is AgentLostError


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("not_found", "FileMissingError"),
        ("exists", "FilePresentError"),
        ("permission", "FileDeniedError"),
        ("no_space", "NoSpaceError"),
        ("file_error", "FileSystemError"),
        ("context_not_found", "NotFoundError"),
        ("process_not_found", "NotFoundError"),
        ("busy", "BusyError"),
        ("unsupported", "UnsupportedError"),
        ("bad_request", "InvalidRequestError"),
        ("start_failed", "InvalidRequestError"),
        ("from_the_future", "GuestError"),
    ],
)
async def test_refusals_have_their_types_and_cannot_steer_a_terminal(tmp_path: Path, code: str, kind: str) -> None:
    refused = encode(FrameType.ERROR, {"code": code, "message": "no\x1b[31m" + "x" * 3000})
    error = await _raised(tmp_path / "v", lambda guest: guest.stat("a"), refused)
    assert type(error) is getattr(errors, kind)
    assert "\x1b" not in str(error)
    assert len(str(error)) < 600


@pytest.mark.parametrize(
    "answers",
    [
        encode(FrameType.STARTED, {"nonce": ""}),
        encode(FrameType.STARTED, {"pid": 1, "offset": -1}),
        _STARTED + encode(FrameType.GAP, {"offset": 10, "missing": 5}),
        _STARTED + encode(FrameType.EXIT, {"reason": "exit", "exit_code": None, "signal": None, "usage": _USAGE}),
        _STARTED + encode(FrameType.EXIT, {"reason": "signal", "exit_code": 1, "signal": "SIGKILL", "usage": _USAGE}),
        _STARTED + encode(FrameType.EXIT, {"reason": "timeout", "exit_code": None, "signal": "\x1b", "usage": _USAGE}),
        _STARTED + encode(FrameType.ANSWER, {}),
    ],
    ids=range(7),
)
async def test_a_process_that_breaks_the_protocol_is_a_protocol_error(tmp_path: Path, answers: bytes) -> None:
    assert isinstance(await _raised(tmp_path / "v", _follow, answers), ProtocolError)


async def test_files_that_break_the_protocol_are_protocol_errors(tmp_path: Path) -> None:
    answer = encode(FrameType.ANSWER, {"size": 3})
    too_much = answer + encode(FrameType.DATA, b"1234") + encode(FrameType.DATA, b"")
    assert isinstance(await _raised(tmp_path / "v", _read, too_much), ProtocolError)
    for change in ({"kind": "door"}, {"size": -1}, {"mode": 1 << 20}, {"path": 5}, {"modified_at": "now"}):
        told = encode(FrameType.ANSWER, _FILE | change)
        assert isinstance(await _raised(tmp_path / "v", lambda guest: guest.stat("a"), told), ProtocolError)
        listed = encode(FrameType.PART, {"items": [_FILE | change]}) + encode(FrameType.ANSWER, {})
        assert isinstance(await _raised(tmp_path / "v", lambda guest: guest.list_dir("a"), listed), ProtocolError)


async def test_a_listing_without_end_is_broken_off(tmp_path: Path) -> None:
    part = encode(FrameType.PART, {"items": [_FILE] * 200})
    error = await _raised(tmp_path / "v", lambda guest: guest.list_dir("a"), *[part] * 120)
    assert isinstance(error, ProtocolError)


@given(st.binary(max_size=200))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_an_answer_or_a_typed_error(tmp_path: Path, garbage: bytes) -> None:
    async def main() -> None:
        for call in (_run, _follow, lambda guest: guest.stat("a")):
            kinds.add(type(await _raised(tmp_path / "v", call, garbage)))  # type: ignore[arg-type]

    kinds: set[type[BaseException]] = set()
    anyio.run(main)
    assert all(issubclass(kind, MayflyError) for kind in kinds)
