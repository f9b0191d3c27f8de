"""JavaScript in the `node` image: a real microVM, through the Python client and the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mayfly import Sandbox
from mayfly.errors import SetupError
from mayfly.images.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import LiveNode

    from mayfly.host.paths import StatePaths

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

START_S = 240.0
"""Node.js under an emulated processor, from a file system that nobody has read yet."""


@pytest.fixture(scope="module")
def sandbox(live_node: LiveNode, ready_state: StatePaths) -> Iterator[Sandbox]:
    """One for all: none of the tests leaves it unusable."""
    try:
        Store(ready_state).current("image-node")
    except SetupError:
        pytest.skip("the image node; run `mayfly image build node`")
    with Sandbox(node=live_node.client().address, lang="javascript") as sandbox:
        yield sandbox
    live_node.settle()


def test_the_language_chooses_the_image(sandbox: Sandbox) -> None:
    info = sandbox.info()
    assert (info.lang, info.image.partition("@")[0]) == ("javascript", "node")
    assert [context.lang for context in sandbox.list_contexts()] == ["javascript"]


def test_names_output_and_the_last_value_are_those_of_a_notebook(sandbox: Sandbox) -> None:
    heard: list[str] = []
    code = "const list = [1, 2]; let total = 0; function add(n) { total += n }\nconsole.log('é')"
    assert sandbox.run_code(code, on_stdout=heard.append).ok
    assert "".join(heard) == "é\n"
    assert sandbox.run_code("list.forEach(add); total").text == "3"
    shown = sandbox.run_code("console.error('aside'); ({ total, list })")
    assert (shown.logs.stderr, shown.results[0].json) == ("aside\n", {"total": 3, "list": [1, 2]})


def test_await_works_at_the_top_level(sandbox: Sandbox) -> None:
    assert sandbox.run_code("const later = await new Promise((done) => setTimeout(done, 1, 41))").ok
    assert sandbox.run_code("later + 1").text == "42"


def test_what_is_thrown_is_told_and_the_names_stay(sandbox: Sandbox) -> None:
    failed = sandbox.run_code("let kept = 5\nfunction broken() { return null.x }\nbroken()")
    assert failed.error is not None
    assert (failed.status, failed.error.name, failed.state_lost) == ("failed", "TypeError", False)
    assert "broken" in failed.error.traceback
    assert sandbox.run_code("kept").text == "5"
    wrong = sandbox.run_code("await Promise.reject(new RangeError('too far'))")
    assert wrong.error is not None
    assert (wrong.error.name, wrong.error.value) == ("RangeError", "too far")


def test_an_endless_loop_is_interrupted_and_the_names_are_kept(sandbox: Sandbox) -> None:
    sandbox.run_code("let before = 7")
    for endless in ("for (;;) {}", "await new Promise(() => {})"):
        stopped = sandbox.run_code(endless, timeout_s=2)
        assert (stopped.status, stopped.state_lost) == ("timeout", False), endless
    assert sandbox.run_code("before").text == "7"


def test_a_program_in_a_file_runs_under_node(sandbox: Sandbox) -> None:
    sandbox.files.write(
        "sum.js", "console.log(process.argv.slice(2).map(Number).reduce((a, b) => a + b)); process.exit(4)"
    )
    done = sandbox.commands.run("node sum.js 40 2", timeout_s=START_S)
    assert (done.exit_code, done.stdout) == (4, "42\n")


def test_the_command_line_runs_it_in_a_sandbox(live_node: LiveNode, sandbox: Sandbox) -> None:
    done = live_node.mayfly("exec", "--lang", "javascript", "-c", "[6, 7].reduce((a, b) => a * b)", sandbox.id)
    assert (done.returncode, done.stdout) == (0, b"42\n"), done.stderr


def test_python_and_bash_are_there_too(sandbox: Sandbox) -> None:
    assert sandbox.run_code("sum(range(4))", language="python", timeout_s=START_S).text == "6"
    assert sandbox.run_code("node --version", language="bash", timeout_s=START_S).logs.stdout.startswith("v20.")


def test_a_context_that_exits_says_that_its_names_are_lost(sandbox: Sandbox) -> None:
    sandbox.run_code("let gone = 1")
    ended = sandbox.run_code("process.exit(3)")
    assert (ended.status, ended.state_lost) == ("context_lost", True)
    assert sandbox.run_code("typeof gone", timeout_s=START_S).text == "'undefined'"
