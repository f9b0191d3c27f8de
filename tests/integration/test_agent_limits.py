"""Limits and clean-up: the agent as a plain process, where rlimits and looks at /proc stand in for cgroups."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mayfly.guest.frames import FrameType, encode
from mayfly.testing.agent import AgentProcess, agent_process, exec_frames, read_frames, result_of

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

_STUBBORN = "import signal\nfor n in (2, 15):\n    signal.signal(n, signal.SIG_IGN)\nprint('armed', flush=True)\n"


@pytest.fixture(scope="module")
def agent() -> Iterator[AgentProcess]:
    with agent_process() as agent:
        yield agent


def _descendants(pid: int) -> list[str]:
    """Command lines of everything that lives below a process, but a waiting runner."""
    found: list[str] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            try:
                command = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode()
                found += [command, *_descendants(int(child))] if ".mayfly-" not in command else []
            except OSError:
                continue
    return [command for command in found if command]


def _is_clean(agent: AgentProcess) -> bool:
    until = time.monotonic() + 5
    while _descendants(agent.pid) and time.monotonic() < until:
        time.sleep(0.01)
    return not _descendants(agent.pid)


def _read_until(connection: socket.socket, mark: bytes) -> None:
    seen = b""
    while mark not in seen:
        data = connection.recv(65536)
        assert data, f"the agent closed before {mark!r} came"
        seen += data


@pytest.mark.parametrize(
    "program",
    [
        "while True: pass",
        _STUBBORN + "while True: pass",
        "import time\ntime.sleep(100)",
        "import re\nre.match('(a+)+$', 'a' * 40 + 'b')",
        "import threading, time\nfor _ in range(5): threading.Thread(target=time.sleep, args=(60,)).start()",
        "import sys\nsys.setswitchinterval(1000)\n10 ** 10 ** 8",
    ],
    ids=["spin", "signals ignored", "sleep", "stall in C", "threads", "huge power"],
)
def test_the_deadline_ends_it(agent: AgentProcess, program: str) -> None:
    result = agent.run(program, timeout_s=0.5)
    assert result.report is not None
    assert (result.reason, result.exit_code, result.report["signal"]) == ("timeout", None, None)
    assert _is_clean(agent)


def test_the_deadline_ends_a_shell_and_its_children(agent: AgentProcess) -> None:
    result = agent.run("trap '' TERM; sleep 100 & sleep 100", lang="bash", timeout_s=0.4)
    assert result.reason == "timeout"
    assert _is_clean(agent)


def test_output_before_the_deadline_is_kept(agent: AgentProcess) -> None:
    result = agent.run("print('so far', flush=True)\nwhile True: pass", timeout_s=0.5)
    assert (result.stdout, result.reason) == (b"so far\n", "timeout")


def test_cpu_time_is_limited_apart_from_wall_time(agent: AgentProcess) -> None:
    assert agent.run("while True: pass", cpu_s=0.3).reason == "cpu"
    assert agent.run("import time\ntime.sleep(0.6)", cpu_s=0.3).reason == "exit"


def test_cpu_time_of_children_counts(agent: AgentProcess) -> None:
    assert agent.run("while :; do :; done & while :; do :; done", lang="bash", cpu_s=0.4).reason == "cpu"
    assert _is_clean(agent)


def test_memory_used_up_is_told_as_oom(agent: AgentProcess) -> None:
    result = agent.run("a = []\nwhile True: a.append(b'x' * 2**20); sum(a[-1][::4096])", mem_bytes=64 << 20)
    assert (result.reason, result.exit_code) == ("oom", None)


def test_more_processes_than_allowed_are_refused(agent: AgentProcess) -> None:
    if os.getuid() == 0 and not _is_limited(agent):
        pytest.skip("RLIMIT_NPROC does not hold this user back")
    program = (
        "import os, time\ncount = 0\n"
        "try:\n    while count < 500:\n        if os.fork() == 0: time.sleep(60)\n        count += 1\n"
        "except BlockingIOError:\n    print(count)\n"
    )
    result = agent.run(program, pids=20)
    assert 1 <= int(result.stdout) <= 20
    assert _is_clean(agent)


def _is_limited(agent: AgentProcess) -> bool:
    return agent.run("import os; print(os.getuid())").stdout != b"0\n"


def test_a_fork_bomb_ends_with_its_deadline(agent: AgentProcess) -> None:
    result = agent.run("import os\nwhile True:\n    try: os.fork()\n    except OSError: pass\n", pids=30, timeout_s=1.0)
    assert result.reason == "timeout"
    assert _is_clean(agent)
    assert agent.answers()


def test_background_children_die_with_the_program(agent: AgentProcess) -> None:
    result = agent.run("sleep 100 & (sleep 100 &) ; echo done", lang="bash")
    assert (result.stdout, result.exit_code) == (b"done\n", 0)
    assert _is_clean(agent)


def test_a_daemon_that_holds_the_output_open_delays_nothing(agent: AgentProcess) -> None:
    program = (
        "import os, time\n"
        "if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        print('daemon', flush=True)\n"
        "        time.sleep(100)\n    os._exit(0)\n"
        "os.wait(); time.sleep(0.2); print('end')\n"
    )
    result = agent.run(program)
    assert (sorted(result.stdout.split()), result.exit_code) == ([b"daemon", b"end"], 0)
    assert _is_clean(agent)


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_hundred_megabytes_are_cut_and_counted(agent: AgentProcess, stream: str) -> None:
    result = agent.run(f"import sys\nfor _ in range(100): sys.{stream}.write('x' * 10**6)", output_bytes=100_000)
    assert result.report is not None
    assert len(getattr(result, stream)) == 100_000
    assert (result.report["usage"][f"{stream}_bytes"], result.report["truncated"]) == (100_000_000, True)
    assert result.exit_code == 0


def test_output_of_exactly_the_limit_is_whole(agent: AgentProcess) -> None:
    result = agent.run("import sys; sys.stdout.write('x' * 1000)", output_bytes=1000)
    assert result.report is not None
    assert (len(result.stdout), result.report["truncated"]) == (1000, False)


def test_no_output_at_all_may_be_asked_for(agent: AgentProcess) -> None:
    result = agent.run("print('x'); raise SystemExit(4)", output_bytes=0)
    assert result.report is not None
    assert (result.stdout, result.exit_code, result.report["truncated"]) == (b"", 4, True)


def test_endless_output_ends_with_the_deadline(agent: AgentProcess) -> None:
    result = agent.run("while True: print('x' * 1000)", output_bytes=5000, timeout_s=0.5)
    assert (len(result.stdout), result.reason) == (5000, "timeout")


def test_a_host_that_does_not_read_slows_the_program_and_costs_the_agent_no_memory(agent: AgentProcess) -> None:
    program = b"import sys\nfor _ in range(300): sys.stdout.write('x' * 10**5)\n"
    with agent.connect() as connection:
        connection.sendall(exec_frames(program, output_bytes=64 << 20))
        time.sleep(0.5)
        resident = int(Path(f"/proc/{agent.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        assert resident < 40 << 20
        result = result_of(read_frames(connection))
    assert (len(result.stdout), result.exit_code) == (30_000_000, 0)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGKILL"])
def test_signals_reach_the_program(agent: AgentProcess, name: str) -> None:
    program = b"import signal, time\nsignal.signal(2, signal.SIG_DFL)\nprint('armed', flush=True)\ntime.sleep(100)"
    with agent.connect() as connection:
        connection.sendall(exec_frames(program))
        _read_until(connection, b"armed")
        connection.sendall(encode(FrameType.SIGNAL, {"signal": name}))
        result = result_of(read_frames(connection))
    assert result.report is not None
    assert (result.reason, result.report["signal"]) == ("signal", name)


def test_sigint_is_a_keyboard_interrupt_in_python(agent: AgentProcess) -> None:
    program = (
        b"import time\ntry:\n    print('armed', flush=True)\n    time.sleep(9)\nexcept KeyboardInterrupt:\n    exit(42)"
    )
    with agent.connect() as connection:
        connection.sendall(exec_frames(program))
        _read_until(connection, b"armed")
        connection.sendall(encode(FrameType.SIGNAL, {"signal": "SIGINT"}))
        assert result_of(read_frames(connection)).exit_code == 42


def test_sigkill_takes_the_children_too(agent: AgentProcess) -> None:
    with agent.connect() as connection:
        connection.sendall(exec_frames(b"setsid sleep 100 & echo armed; wait", lang="bash"))
        _read_until(connection, b"armed")
        connection.sendall(encode(FrameType.SIGNAL, {"signal": "SIGKILL"}))
        assert result_of(read_frames(connection)).reason == "signal"
    assert _is_clean(agent)


def test_a_connection_that_the_host_closes_ends_its_program(agent: AgentProcess) -> None:
    with agent.connect() as connection:
        connection.sendall(exec_frames(_STUBBORN.encode() + b"import os\nos.fork()\nwhile True: pass"))
        _read_until(connection, b"armed")
    assert _is_clean(agent)
    assert agent.answers()


def test_programs_at_the_same_time_do_not_mix(agent: AgentProcess) -> None:
    connections = [agent.connect() for _ in range(5)]
    for number, connection in enumerate(connections):
        connection.sendall(
            exec_frames(f"import time\ntime.sleep(0.2)\nprint({number})".encode(), filename=f"p{number}.py")
        )
    outputs = [result_of(read_frames(connection)).stdout for connection in connections]
    for connection in connections:
        connection.close()
    assert outputs == [f"{number}\n".encode() for number in range(5)]


def test_a_runner_killed_while_it_waits_is_replaced(agent: AgentProcess) -> None:
    assert agent.run("print(1)").stdout == b"1\n"
    assert agent.run("pkill -9 -f '[.]mayfly-' ; true", lang="bash").exit_code == 0
    assert agent.run("print(2)").stdout == b"2\n"


def test_the_agent_cannot_be_killed_by_a_program(agent: AgentProcess) -> None:
    if os.getuid() != 0:
        pytest.skip("programs run as another user only where the agent is root")
    result = agent.run(
        f"import os\nfor n in (9, 15, 19):\n  try: os.kill({agent.pid}, n)\n  except PermissionError: print('no')"
    )
    assert result.stdout == b"no\nno\nno\n"
    assert agent.answers()


def test_descriptors_used_up_by_a_program_cost_the_agent_nothing(agent: AgentProcess) -> None:
    result = agent.run(
        "fds = []\ntry:\n    while True: fds.append(open('/dev/null'))\nexcept OSError as e: print(e.errno)"
    )
    assert result.stdout == b"24\n"
    assert agent.answers()


def test_the_agent_keeps_nothing_of_a_hundred_programs(agent: AgentProcess) -> None:
    agent.run("true", lang="bash")
    before = len(os.listdir(f"/proc/{agent.pid}/fd"))
    for _ in range(100):
        assert agent.run("exit 0", lang="bash").exit_code == 0
    assert len(os.listdir(f"/proc/{agent.pid}/fd")) <= before + 1


def test_a_signal_sent_before_the_program_starts_reaches_it(agent: AgentProcess) -> None:
    program = exec_frames(b"import time\ntime.sleep(100)")
    result = result_of(agent.ask(program + encode(FrameType.SIGNAL, {"signal": "SIGTERM"})))
    assert result.report is not None
    assert result.report["signal"] == "SIGTERM"


def test_a_host_that_reads_late_still_gets_everything(agent: AgentProcess) -> None:
    program = b"import sys\nsys.stdout.write('x' * 600_000)"
    with agent.connect() as connection:
        connection.sendall(exec_frames(program))
        time.sleep(0.3)
        result = result_of(read_frames(connection))
    assert (len(result.stdout), result.exit_code) == (600_000, 0)
