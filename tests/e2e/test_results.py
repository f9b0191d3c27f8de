"""What a program does and how it ends, through a real node: the result says so, and nothing stays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from mayfly.errors import InvalidRequestError
from mayfly.model import CODE_MAX_BYTES

if TYPE_CHECKING:
    from tests.conftest import LiveNode, Outcomes

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600), pytest.mark.usefixtures("settled")]

EVERYTHING = """
import os, sys
print("args", sys.argv[1:])
print("env", os.environ["GREETING"])
print("input", sys.stdin.read())
print("user", os.getuid(), os.path.basename(sys.argv[0]), __name__, flush=True)
os.write(1, b"not text: \\xff\\n")
print("to the other side", file=sys.stderr)
sys.exit(7)
"""
BASH = """
read -r line
echo "$line $1 $GREETING"
echo elsewhere >&2
exit 3
"""
TRACEBACK = "def inner():\n    return 1 / 0\n\ninner()\n"
SEGFAULT = "import os, signal\nprint('before', flush=True)\nos.kill(os.getpid(), signal.SIGSEGV)\n"
CLOSES = "import os\nprint('last words', flush=True)\nos.close(1)\nos.close(2)\nos._exit(5)\n"
BACKGROUND = """
import os, subprocess, sys
subprocess.Popen(["sleep", "3000"])
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        while True:
            pass
    os._exit(0)
print("parent is done")
"""
KILLS_AGENT = """
import os, signal
for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGSEGV):
    try:
        os.kill(1, number)
        print("sent", number)
    except PermissionError:
        print("refused")
"""


@pytest.fixture(scope="module")
def results(live_node: LiveNode, program: Any) -> Outcomes:
    greeting = {"env": {"GREETING": "zdravo ✓"}, "stdin": "ena\ndva\n"}
    return live_node.run_all(
        {
            "everything": program(EVERYTHING, {**greeting, "args": ["a b", "'", "✓"], "filename": "job.py"}),
            "bash": program(BASH, {**greeting, "lang": "bash", "args": ["one"]}),
            "traceback": program(TRACEBACK, {"filename": "sums.py"}),
            "empty": program(""),
            "empty bash": program("", {"lang": "bash"}),
            "signal": program(SEGFAULT, {"policy": "research"}),
            "closes": program(CLOSES, {"policy": "research"}),
            "background": program(BACKGROUND, {"policy": "research", "timeout_s": 600}),
            "largest": program("x = 1 #" + "x" * (CODE_MAX_BYTES - 7 - 14) + "\nprint('fits')"),
            "kills agent": program(KILLS_AGENT, {"policy": "research"}),
        }
    )


def test_arguments_environment_input_and_both_outputs_arrive(results: Outcomes) -> None:
    result = results["everything"]
    assert (result.status, result.exit_code, result.signal, result.error) == ("failed", 7, None, None)
    assert result.stdout.splitlines() == [
        "args ['a b', \"'\", '✓']",
        "env zdravo ✓",
        "input ena",
        "dva",
        "",
        "user 1000 job.py __main__",
        "not text: \ufffd",
    ]
    assert result.stderr == "to the other side\n"
    assert not result.truncated


def test_a_result_tells_its_stages_usage_and_host(results: Outcomes) -> None:
    result = results["everything"]
    assert [stage.name for stage in result.stages] == ["scan", "launch", "greet", "execute", "collect", "destroy"]
    assert result.host is not None
    assert result.host.kind in {"kvm", "emulated"}
    assert result.host.firecracker
    assert result.usage.wall_ms > 0
    assert result.usage.mem_peak_bytes > 1 << 20
    assert result.usage.stderr_bytes == len("to the other side\n")
    assert result.scan is not None
    assert result.scan.verdict in {"allow", "review"}


def test_bash_runs_in_the_same_image(results: Outcomes) -> None:
    result = results["bash"]
    assert (result.status, result.exit_code) == ("failed", 3)
    assert (result.stdout, result.stderr) == ("ena one zdravo ✓\n", "elsewhere\n")


def test_an_uncaught_exception_shows_file_and_line(results: Outcomes) -> None:
    result = results["traceback"]
    assert (result.status, result.exit_code) == ("failed", 1)
    assert 'sums.py", line 2, in inner' in result.stderr
    assert "ZeroDivisionError" in result.stderr
    assert "mayfly" not in result.stderr, "the runner's own frames do not show"


@pytest.mark.parametrize("name", ["empty", "empty bash"])
def test_an_empty_program_succeeds_and_prints_nothing(results: Outcomes, name: str) -> None:
    result = results[name]
    assert (result.status, result.exit_code, result.stdout, result.stderr) == ("succeeded", 0, "", "")


def test_an_end_by_signal_is_named(results: Outcomes) -> None:
    result = results["signal"]
    assert (result.status, result.exit_code, result.signal) == ("signaled", 139, "SIGSEGV")
    assert result.stdout == "before\n"


def test_a_program_that_closes_its_output_keeps_its_exit_code(results: Outcomes) -> None:
    result = results["closes"]
    assert (result.status, result.exit_code, result.stdout) == ("failed", 5, "last words\n")


def test_background_children_do_not_outlive_the_program(results: Outcomes) -> None:
    result = results["background"]
    assert (result.status, result.stdout) == ("succeeded", "parent is done\n")


def test_a_program_of_the_largest_size_runs(results: Outcomes) -> None:
    assert results["largest"].stdout == "fits\n"


def test_the_agent_cannot_be_killed_by_the_program(results: Outcomes) -> None:
    result = results["kills agent"]
    assert (result.status, result.stdout) == ("succeeded", "refused\n" * 4)


def test_more_memory_than_the_node_has_is_refused_by_name(live_node: LiveNode, program: Any) -> None:
    outcomes = live_node.run_all({"huge": program("print(1)", {"mem_mib": 16384})})
    with pytest.raises(InvalidRequestError) as caught:
        outcomes["huge"]
    assert caught.value.field == "limits.mem_mib"
