"""The Python client in front of a real node."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest

import mayfly
from mayfly.errors import NotFoundError
from mayfly.model import ExecutionId

if TYPE_CHECKING:
    from tests.conftest import LiveNode

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300), pytest.mark.usefixtures("settled")]

TALKS = "import sys, time\nprint('é' * 3, flush=True)\nprint('aside', file=sys.stderr)\ntime.sleep(600)\n"


@pytest.fixture(autouse=True)
def _home(live_node: LiveNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAYFLY_HOME", str(live_node.paths.root))


def test_the_first_line_of_the_documentation_works_and_is_remembered(live_node: LiveNode) -> None:
    result = mayfly.run("print(6*7)")
    assert (result.stdout, result.ok) == ("42\n", True)
    remembered = anyio.run(live_node.client().find, result.id)
    assert remembered == result


def test_runs_of_one_runner_share_options_and_nothing_else() -> None:
    heard: list[str] = []
    with mayfly.Runner(lang="bash", env={"WHO": "me"}) as runner:
        first = runner.run("echo $WHO | tee note; exit 4", on_stdout=heard.append)
        second = runner.run("ls; echo aside >&2", on_stderr=heard.append)
    assert (first.exit_code, first.stdout) == (4, "me\n")
    assert (second.exit_code, second.stdout) == (0, "main.sh\n")
    assert heard == ["me\n", "aside\n"]


def test_a_client_that_goes_away_takes_its_machine_with_it(live_node: LiveNode) -> None:
    """The program would go on for ten minutes; cancelled at its first words, it leaves nothing."""

    async def leave() -> list[str]:
        heard: list[str] = []
        with anyio.CancelScope() as scope:

            def hear(text: str) -> None:
                heard.append(text)
                scope.cancel()

            await mayfly.arun(TALKS, on_stdout=hear, timeout_s=700)
        return heard

    assert anyio.run(leave) == ["ééé\n"]
    live_node.settle()


def test_an_unknown_execution_is_not_found(live_node: LiveNode) -> None:
    with pytest.raises(NotFoundError):
        anyio.run(live_node.client().find, ExecutionId("ex-00000000000000000000"))
