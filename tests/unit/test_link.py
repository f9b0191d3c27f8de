"""The host's link and calls, against scripted guests that keep the protocol, break it, or say nothing."""

from __future__ import annotations

import os
import struct
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mayfly.errors import AgentLostError, GuestError, ProtocolError, VmmTimeoutError
from mayfly.guest.calls import ExitReport, Pong, execute, greet, ping
from mayfly.guest.frames import FROM_HOST, Frame, FrameDecoder, FrameType, encode
from mayfly.guest.link import Link, open_link
from mayfly.host.sockets import short_path
from mayfly.model import ExecutionRequest, Limits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from anyio.abc import SocketStream

    Script = Callable[[SocketStream], Awaitable[None]]

pytestmark = pytest.mark.anyio

_PONG = {"protocol": 2, "agent": "1", "python": "3.13.5", "uptime_ms": 12.5, "kernel": "6.1"}
_USAGE = {"wall_ms": 1.5, "cpu_ms": 1, "mem_peak_bytes": 5, "stdout_bytes": 3, "stderr_bytes": 0}
_EXIT = {"nonce": "n", "reason": "exit", "exit_code": 0, "signal": None, "usage": _USAGE, "truncated": False}
_STARTED = encode(FrameType.STARTED, {"nonce": "n", "pid": 9})


@asynccontextmanager
async def _vmm(path: Path, script: Script) -> AsyncIterator[Path]:
    """A VMM's vsock socket whose every connection is served by `script`."""

    open_scripts = 0
    all_closed = anyio.Event()

    async def serve(stream: SocketStream) -> None:
        nonlocal open_scripts, all_closed
        open_scripts += 1
        async with stream:
            with suppress(anyio.BrokenResourceError, anyio.EndOfStream, anyio.ClosedResourceError):
                await script(stream)
        open_scripts -= 1
        all_closed.set()

    with short_path(path) as name:
        listener = await anyio.create_unix_listener(name)
    error: Exception | None = None
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(listener.serve, serve)
            try:
                yield path
            except Exception as caught:  # noqa: BLE001  raised again, outside of the group
                error = caught
            # Let scripts see the host's closing first: asyncio logs an error when that and a cancellation coincide.
            with anyio.move_on_after(0.1):
                while open_scripts:
                    all_closed = anyio.Event()
                    await all_closed.wait()
            group.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await listener.aclose()
    if error is not None:
        raise error


async def _handshake(stream: SocketStream) -> None:
    line = await stream.receive(64)
    assert line == b"CONNECT 5000\n"
    await stream.send(b"OK 1073741824\n")


def _answers(*pieces: bytes, wait_for: int | None = None) -> Script:
    """A guest that sends these bytes after the handshake (and after a frame of that type), then closes."""

    async def script(stream: SocketStream) -> None:
        await _handshake(stream)
        decoder = FrameDecoder(FROM_HOST)
        while wait_for is not None and wait_for not in [f.type for f in decoder.feed(await stream.receive())]:
            pass
        for piece in pieces:
            await stream.send(piece)

    return script


def _execution(script: Script, path: Path, request: ExecutionRequest | None = None, **options: Any) -> Any:
    """Runs `execute` against that guest; gives the report and what came out."""

    async def run() -> tuple[ExitReport, list[tuple[str, bytes]]]:
        output: list[tuple[str, bytes]] = []

        async def on_output(stream: str, data: bytes) -> None:
            output.append((stream, data))

        async with _vmm(path, script), open_link(path, deadline_s=5) as link:
            report = await execute(
                link,
                request or ExecutionRequest(code="pass", limits=Limits(timeout_s=5)),
                nonce="n",
                mem_bytes=None,
                stdin=options.pop("stdin", None),
                on_output=on_output,
                **options,
            )
        return report, output

    return run()


async def test_ping_gives_what_the_agent_says(tmp_path: Path) -> None:
    script = _answers(encode(FrameType.PONG, _PONG), wait_for=FrameType.PING)
    async with _vmm(tmp_path / "v", script) as path, open_link(path, deadline_s=5) as link:
        assert await ping(link) == Pong(protocol=2, agent="1", python="3.13.5", uptime_ms=12.5, kernel="6.1")


async def test_paths_longer_than_a_socket_address_work(tmp_path: Path) -> None:
    directory = tmp_path / ("d" * 100) / ("e" * 100)
    directory.mkdir(parents=True)
    script = _answers(encode(FrameType.PONG, _PONG))
    async with _vmm(directory / "v.sock", script) as path, open_link(path, deadline_s=5) as link:
        assert (await ping(link)).kernel == "6.1"


async def test_a_vmm_that_never_comes_is_a_vmm_timeout(tmp_path: Path) -> None:
    with pytest.raises(VmmTimeoutError, match="5000"):
        async with open_link(tmp_path / "none", deadline_s=0.1):
            pass


async def test_a_guest_that_never_listens_is_a_lost_agent(tmp_path: Path) -> None:
    async def resets(stream: SocketStream) -> None:
        await stream.receive(64)

    async with _vmm(tmp_path / "v", resets) as path:
        with pytest.raises(AgentLostError, match="does not listen"):
            async with open_link(path, deadline_s=0.15):
                pass


async def test_resets_and_hanging_handshakes_are_tried_again(tmp_path: Path) -> None:
    tries = 0

    async def third_time_lucky(stream: SocketStream) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            await stream.receive(64)
            await stream.receive(64)
        elif tries > 2:
            await _answers(encode(FrameType.PONG, _PONG))(stream)

    async with (
        _vmm(tmp_path / "v", third_time_lucky) as path,
        open_link(path, deadline_s=10, try_s=0.1) as link,
    ):
        await ping(link)
    assert tries == 3


async def test_a_socket_that_appears_later_is_found(tmp_path: Path) -> None:
    path = tmp_path / "v"

    async def later(task_status: anyio.abc.TaskStatus[None]) -> None:
        task_status.started()
        await anyio.sleep(0.1)
        async with _vmm(path, _answers(encode(FrameType.PONG, _PONG))):
            await anyio.sleep_forever()

    async with anyio.create_task_group() as group:
        await group.start(later)
        async with open_link(path, deadline_s=10) as link:
            await ping(link)
        group.cancel_scope.cancel()


@pytest.mark.parametrize("answer", [b"NO\n", b"OK\n", b"OK x\n", b"OK " + b"1" * 100, b"\n"], ids=repr)
async def test_another_answer_to_connect_is_a_protocol_error(tmp_path: Path, answer: bytes) -> None:
    async def script(stream: SocketStream) -> None:
        await stream.receive(64)
        await stream.send(answer)
        await stream.receive(64)

    async with _vmm(tmp_path / "v", script) as path:
        with pytest.raises(ProtocolError, match="CONNECT"):
            async with open_link(path, deadline_s=5):
                pass


async def test_the_answer_may_come_in_pieces_and_with_frames_behind_it(tmp_path: Path) -> None:
    async def script(stream: SocketStream) -> None:
        await stream.receive(64)
        for piece in (b"O", b"K 10", b"24\n" + encode(FrameType.PONG, _PONG)[:5], encode(FrameType.PONG, _PONG)[5:]):
            await stream.send(piece)
            await anyio.sleep(0.01)

    async with _vmm(tmp_path / "v", script) as path, open_link(path, deadline_s=5) as link:
        assert (await link.receive()).type == FrameType.PONG


async def test_cancelling_the_connect_leaves_no_descriptor(tmp_path: Path) -> None:
    async def silent(stream: SocketStream) -> None:
        await anyio.sleep_forever()

    async with _vmm(tmp_path / "v", silent) as path:
        before = len(os.listdir("/proc/self/fd"))
        with anyio.move_on_after(0.1):
            async with open_link(path, deadline_s=5):
                pass
        await anyio.sleep(0.05)
        assert len(os.listdir("/proc/self/fd")) <= before + 1  # the scripted guest keeps its end


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", AgentLostError),
        (encode(FrameType.PONG, _PONG)[:-1], AgentLostError),
        (b"\xff" * 8, ProtocolError),
        (struct.pack("!B3xI", FrameType.PONG, 1 << 31), ProtocolError),
        (encode(FrameType.GREETED, {}), ProtocolError),
        (encode(FrameType.PONG, {}), ProtocolError),
        (encode(FrameType.PONG, _PONG | {"protocol": 3}), ProtocolError),
        (encode(FrameType.PONG, _PONG | {"protocol": "1"}), ProtocolError),
        (encode(FrameType.PONG, _PONG | {"kernel": "x" * 1000}), ProtocolError),
        (encode(FrameType.PONG, _PONG | {"uptime_ms": -1}), ProtocolError),
        (encode(FrameType.PONG, b"[]"), ProtocolError),
        (encode(FrameType.PONG, b'{"protocol": NaN}'), ProtocolError),
        (encode(FrameType.PONG, b'{"a":' * 40 + b"1" + b"}" * 40), ProtocolError),
        (encode(FrameType.ERROR, {"code": "internal", "message": "no"}), GuestError),
    ],
    ids=str,
)
async def test_every_wrong_answer_to_ping_is_a_typed_error(
    tmp_path: Path, answer: bytes, error: type[GuestError]
) -> None:
    async with _vmm(tmp_path / "v", _answers(answer, wait_for=FrameType.PING)) as path:
        with pytest.raises(GuestError) as caught:
            async with open_link(path, deadline_s=5) as link:
                await ping(link)
    assert type(caught.value) is error


async def test_an_agent_that_says_nothing_is_lost_at_the_deadline(tmp_path: Path) -> None:
    async def silent(stream: SocketStream) -> None:
        await _handshake(stream)
        await anyio.sleep_forever()

    async with _vmm(tmp_path / "v", silent) as path, open_link(path, deadline_s=5) as link:
        with pytest.raises(AgentLostError, match=r"0\.1 s"):
            await ping(link, deadline_s=0.1)


async def test_a_refused_greeting_is_told_without_control_characters(tmp_path: Path) -> None:
    refusal = encode(FrameType.ERROR, {"code": "internal", "message": "\x1b[31mred\n" + "x" * 1000})
    script = _answers(refusal, wait_for=FrameType.GREET)
    async with _vmm(tmp_path / "v", script) as path, open_link(path, deadline_s=5) as link:
        with pytest.raises(GuestError) as caught:
            await greet(link, entropy=bytes(32), unix_ns=1, hostname="h", machine_id="0" * 32)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 600


async def test_output_and_report_arrive(tmp_path: Path) -> None:
    pieces = [_STARTED, encode(FrameType.STDOUT, b"a"), encode(FrameType.STDERR, b"b"), encode(FrameType.EXIT, _EXIT)]
    report, output = await _execution(_answers(*pieces), tmp_path / "v")
    assert output == [("stdout", b"a"), ("stderr", b"b")]
    assert (report.reason, report.exit_code, report.usage.mem_peak_bytes) == ("exit", 0, 5)


@pytest.mark.parametrize(
    "pieces",
    [
        [encode(FrameType.STDOUT, b"before started")],
        [encode(FrameType.EXIT, _EXIT)],
        [_STARTED, _STARTED],
        [_STARTED, encode(FrameType.PONG, _PONG)],
        [encode(FrameType.STARTED, {"nonce": "another", "pid": 1})],
        [_STARTED, encode(FrameType.EXIT, _EXIT | {"nonce": "replayed"})],
        [_STARTED, encode(FrameType.EXIT, _EXIT | {"reason": "won"})],
        [_STARTED, encode(FrameType.EXIT, _EXIT | {"exit_code": 256})],
        [_STARTED, encode(FrameType.EXIT, _EXIT | {"exit_code": -1})],
        [_STARTED, encode(FrameType.EXIT, _EXIT | {"exit_code": None})],
        [_STARTED, encode(FrameType.EXIT, _EXIT | {"exit_code": 0, "reason": "signal", "signal": "SIGSEGV"})],
        [_STARTED, encode(FrameType.EXIT, _EXIT | {"exit_code": None, "reason": "signal"})],
        [_STARTED, encode(FrameType.EXIT, _EXIT | {"exit_code": None, "reason": "signal", "signal": "\x1b[0m"})],
        [_STARTED, encode(FrameType.EXIT, _EXIT | {"usage": _USAGE | {"wall_ms": -1}})],
        [_STARTED, encode(FrameType.EXIT, _EXIT | {"usage": _USAGE | {"mem_peak_bytes": 2**62}})],
        [_STARTED, encode(FrameType.EXIT, _EXIT | {"usage": {}})],
        [_STARTED, encode(FrameType.EXIT, _EXIT | {"truncated": "no"})],
        [_STARTED, encode(FrameType.EXIT, b'{"a": [' + b"[" * 2000 + b"]" * 2000 + b"]}")],
        [_STARTED, encode(FrameType.STDOUT, b"x" * 11)],
        [_STARTED, *[encode(FrameType.STDERR, b"x" * 4)] * 3],
        [_STARTED, b"\x00" * 8],
    ],
    ids=str,
)
async def test_a_lying_agent_is_a_protocol_error(tmp_path: Path, pieces: list[bytes]) -> None:
    request = ExecutionRequest(code="pass", limits=Limits(timeout_s=5, output_bytes=10))
    with pytest.raises(ProtocolError):
        await _execution(_answers(*pieces), tmp_path / "v", request)


@pytest.mark.parametrize("pieces", [[], [_STARTED], [_STARTED, encode(FrameType.EXIT, _EXIT)[:9]]], ids=str)
async def test_an_agent_that_goes_away_is_lost(tmp_path: Path, pieces: list[bytes]) -> None:
    with pytest.raises(AgentLostError):
        await _execution(_answers(*pieces, wait_for=FrameType.EXEC), tmp_path / "v")


async def test_the_hosts_own_clock_ends_an_agent_that_never_reports(tmp_path: Path) -> None:
    async def endless(stream: SocketStream) -> None:
        await _handshake(stream)
        await stream.send(_STARTED)
        await anyio.sleep_forever()

    request = ExecutionRequest(code="pass", limits=Limits(timeout_s=0.1))
    started = time.monotonic()
    with pytest.raises(AgentLostError, match="within"):
        await _execution(endless, tmp_path / "v", request, grace_s=0.1)
    assert time.monotonic() - started >= 0.2


async def test_an_error_says_what_the_agent_said(tmp_path: Path) -> None:
    error = encode(FrameType.ERROR, {"code": "start_failed", "message": "no space"})
    with pytest.raises(GuestError, match="start_failed: no space"):
        await _execution(_answers(error, wait_for=FrameType.EXEC), tmp_path / "v")


async def test_the_program_and_its_input_are_cut_into_frames(tmp_path: Path) -> None:
    got: list[Frame] = []

    async def script(stream: SocketStream) -> None:
        await _handshake(stream)
        decoder = FrameDecoder(FROM_HOST)
        while not got or (got[-1].type, got[-1].payload) != (FrameType.STDIN, b""):
            got.extend(decoder.feed(await stream.receive()))
        await stream.send(_STARTED + encode(FrameType.EXIT, _EXIT))

    async def stdin() -> AsyncIterator[bytes]:
        yield b"a" * 100_000
        yield b""
        yield b"b"

    code = "#" * 150_000
    await _execution(script, tmp_path / "v", ExecutionRequest(code=code), stdin=stdin())
    exec_frame = got[0].json()
    assert (exec_frame["program_bytes"], exec_frame["filename"], exec_frame["stdin"]) == (150_000, "main.py", True)
    assert b"".join(f.payload for f in got if f.type == FrameType.PROGRAM) == code.encode()
    assert b"".join(f.payload for f in got if f.type == FrameType.STDIN) == b"a" * 100_000 + b"b"


async def test_input_that_never_ends_does_not_outlive_the_program(tmp_path: Path) -> None:
    async def stdin() -> AsyncIterator[bytes]:
        yield b"x"
        await anyio.sleep_forever()

    script = _answers(_STARTED, encode(FrameType.EXIT, _EXIT), wait_for=FrameType.STDIN)
    report, _ = await _execution(script, tmp_path / "v", stdin=stdin())
    assert report.exit_code == 0


async def test_an_error_of_the_input_comes_out_as_itself(tmp_path: Path) -> None:
    async def stdin() -> AsyncIterator[bytes]:
        yield b"x"
        raise KeyError("the caller's own")

    async def endless(stream: SocketStream) -> None:
        await _handshake(stream)
        await stream.send(_STARTED)
        await anyio.sleep_forever()

    with pytest.raises(KeyError, match="the caller's own"):
        await _execution(endless, tmp_path / "v", stdin=stdin())


async def test_a_link_reports_what_was_cut_off(tmp_path: Path) -> None:
    async with _vmm(tmp_path / "v", _answers(b"\x81\0\0")) as path, open_link(path, deadline_s=5) as link:
        assert isinstance(link, Link)
        with pytest.raises(AgentLostError, match="3 bytes into a frame"):
            await link.receive()
