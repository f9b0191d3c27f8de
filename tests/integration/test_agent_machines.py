"""The fake launcher: the real agent behind Firecracker's handshake, its faults, and what it leaves behind."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest

from mayfly.errors import AgentLostError, GuestError, ProtocolError, VmmTimeoutError
from mayfly.guest.calls import ExitReport, execute, greet, ping
from mayfly.guest.frames import FrameType, encode
from mayfly.guest.link import open_link
from mayfly.host.tasks import single_error
from mayfly.model import ExecutionRequest, Limits
from mayfly.testing import FakeLauncher, FakeMachine, Faults
from mayfly.vmm.launcher import MachineSpec

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio

_SPEC = MachineSpec(id="m1", mem_mib=256)
_FORGED = encode(FrameType.STARTED, {"nonce": "forged", "pid": 1})


@pytest.fixture
async def launcher() -> AsyncIterator[FakeLauncher]:
    async with anyio.create_task_group() as group:
        launcher = FakeLauncher(group)
        yield launcher
        for machine in launcher.launched:
            await machine.destroy()


async def _run(machine: FakeMachine, code: str, **limits: float) -> tuple[ExitReport, dict[str, bytes]]:
    output = {"stdout": b"", "stderr": b""}

    async def on_output(stream: str, data: bytes) -> None:
        output[stream] += data

    request = ExecutionRequest(code=code, limits=Limits(**({"timeout_s": 10.0} | limits)))  # type: ignore[arg-type]
    async with open_link(machine.vsock_path, deadline_s=10) as link:
        report = await execute(link, request, nonce="n", mem_bytes=None, stdin=None, on_output=on_output)
    return report, output


def _processes_naming(text: str) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes() if entry.name.isdecimal() else b""
        except OSError:
            continue
        if text.encode() in command:
            found.append(command.decode(errors="replace"))
    return found


async def test_a_machine_is_greeted_runs_a_program_and_goes(launcher: FakeLauncher) -> None:
    machine = await launcher.launch(_SPEC)
    async with open_link(machine.vsock_path, deadline_s=10) as link:
        await greet(link, entropy=os.urandom(32), unix_ns=1, hostname="m1", machine_id="0" * 32)
    report, output = await _run(machine, "print(6 * 7)")
    assert (report.reason, report.exit_code, output["stdout"]) == ("exit", 0, b"42\n")
    await machine.destroy()
    assert machine.exited.is_set()
    assert not machine.vsock_path.parent.exists()


async def test_it_says_that_it_is_a_fake(launcher: FakeLauncher) -> None:
    assert launcher.kind == "fake"
    assert launcher.describe().kind == "fake"


async def test_destroy_ends_what_still_runs_and_can_be_repeated(launcher: FakeLauncher) -> None:
    machine = await launcher.launch(_SPEC)
    mark = f"left-over-of-{machine.pid}"
    code = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'import time; time.sleep(99)', '{mark}'])"
    with anyio.move_on_after(0.5):
        await _run(machine, code)
    await machine.destroy()
    await machine.destroy()
    assert _processes_naming(mark) == []
    assert _processes_naming(str(machine.vsock_path)) == []


async def test_the_machines_memory_is_the_programs_limit(launcher: FakeLauncher) -> None:
    machine = await launcher.launch(MachineSpec(id="m2", mem_mib=128))
    report, _ = await _run(
        machine, "a = []\nwhile True:\n    a.append(bytearray(2**20))\n    a[-1][::4096] = b'x' * 256"
    )
    assert report.reason == "oom"


async def test_a_machine_that_is_killed_says_so(launcher: FakeLauncher) -> None:
    machine = await launcher.launch(_SPEC)
    os.kill(machine.pid, signal.SIGKILL)
    with anyio.fail_after(10):
        await machine.exited.wait()


async def test_a_failing_launch_leaves_nothing(launcher: FakeLauncher) -> None:
    launcher.faults = Faults(launch_fails=True)
    with pytest.raises(VmmTimeoutError):
        await launcher.launch(_SPEC)
    assert launcher.launched == []


async def test_a_cancelled_launch_leaves_nothing(launcher: FakeLauncher) -> None:
    launcher.faults = Faults(handshake_hangs=100)
    async with anyio.create_task_group() as group:
        group.start_soon(launcher.launch, _SPEC)
        with anyio.fail_after(20):
            while not launcher.launched:  # noqa: ASYNC110 - there is no event for it
                await anyio.sleep(0.01)
        group.cancel_scope.cancel()
    (machine,) = launcher.launched
    assert machine.exited.is_set()
    assert not machine.vsock_path.parent.exists()


async def test_handshakes_that_hang_or_are_reset_are_survived(launcher: FakeLauncher) -> None:
    launcher.faults = Faults(handshake_hangs=1, handshake_resets=2)
    machine = await launcher.launch(_SPEC)
    assert (await _run(machine, "print(1)"))[1]["stdout"] == b"1\n"


async def test_a_silent_agent_is_lost(launcher: FakeLauncher) -> None:
    launcher.faults = Faults(silent=True)
    machine = await launcher.launch(_SPEC)
    async with open_link(machine.vsock_path, deadline_s=10) as link:
        with pytest.raises(AgentLostError):
            await ping(link, deadline_s=0.2)


@pytest.mark.parametrize(
    ("faults", "error"),
    [
        (Faults(drops_exec=True), AgentLostError),
        (Faults(dies_at_exec=True), AgentLostError),
        (Faults(answer_to_exec=b"\xff" * 16), ProtocolError),
        (Faults(answer_to_exec=_FORGED), ProtocolError),
        (Faults(answer_to_exec=encode(FrameType.ERROR, {"code": "internal", "message": "m"})), GuestError),
    ],
    ids=["drops", "dies", "garbage", "forged nonce", "error"],
)
async def test_faults_at_exec_are_typed_errors(launcher: FakeLauncher, faults: Faults, error: type[GuestError]) -> None:
    launcher.faults = faults
    machine = await launcher.launch(_SPEC)
    with pytest.raises(GuestError) as caught:
        await _run(machine, "print(1)")
    assert type(caught.value) is error
    if faults.dies_at_exec:
        with anyio.fail_after(10):
            await machine.exited.wait()
        assert "EXEC" in machine.last_words()


async def test_a_program_that_kills_its_agent_ends_its_machine(launcher: FakeLauncher) -> None:
    if os.getuid() == 0:
        pytest.skip("needs a user other than root: a program cannot kill an agent that is root")
    machine = await launcher.launch(_SPEC)
    with pytest.raises(AgentLostError):
        await _run(machine, "import os\nos.kill(os.getppid(), 9)\nimport time\ntime.sleep(60)")
    with anyio.fail_after(10):
        await machine.exited.wait()


async def test_ten_machines_at_a_time(launcher: FakeLauncher) -> None:
    outputs: list[bytes] = []

    async def one(number: int) -> None:
        machine = await launcher.launch(MachineSpec(id=f"m{number}", mem_mib=128))
        outputs.append((await _run(machine, f"print({number})"))[1]["stdout"])
        await machine.destroy()

    with single_error():
        async with anyio.create_task_group() as group:
            for number in range(10):
                group.start_soon(one, number)
    assert sorted(outputs) == sorted(f"{number}\n".encode() for number in range(10))
