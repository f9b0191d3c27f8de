"""Interpreters that keep state, as their users know them: the real agent, real interpreters, no microVM."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import pytest

from mayfly.errors import BusyError, FilePresentError, InvalidRequestError, NotFoundError
from mayfly.guest.shapes import CodeOutput, CodeRequest
from mayfly.testing.guests import open_guest, run_cell

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mayfly.guest.sandbox import Guest
    from mayfly.guest.shapes import CodeEvent

pytestmark = pytest.mark.anyio


@pytest.fixture
async def guest() -> AsyncIterator[Guest]:
    async with open_guest() as guest:
        await guest.create_context("default", lang="python")
        yield guest


async def _other(guest: Guest, lang: str) -> None:
    if lang == "javascript" and not os.access("/usr/bin/node", os.X_OK):
        pytest.skip("Node.js is not installed")
    await guest.create_context(lang, lang=lang)  # type: ignore[arg-type]


async def test_state_the_last_value_and_output_in_their_order(guest: Guest) -> None:
    await run_cell(guest, "x = 20\ndef double(n):\n    return 2 * n")
    cell = await run_cell(guest, "import sys\nprint('one')\ndisplay('shown')\nprint('two', end='')\ndouble(x) + 2")
    told = b""
    for event in cell.events:
        told += event.data if isinstance(event, CodeOutput) else event.data["text/plain"].encode()  # type: ignore[union-attr]
    assert told == b"one\n'shown'two42"
    assert (cell.end.status, cell.end.execution_count, cell.text) == ("ok", 2, "42")


async def test_what_is_raised_is_told_and_the_state_stays(guest: Guest) -> None:
    cell = await run_cell(guest, "x = 1\ndef f():\n    return 1 / 0\nf()")
    assert cell.end.status == "error"
    assert cell.error is not None
    assert (cell.error.name, cell.error.value) == ("ZeroDivisionError", "division by zero")
    assert "in f" in cell.error.traceback
    assert "mayfly" not in cell.error.traceback
    assert (await run_cell(guest, "x")).text == "1"
    assert ((await run_cell(guest, "if x = 1:")).error or cell.error).name == "SyntaxError"


async def test_await_at_the_top_level(guest: Guest) -> None:
    await run_cell(guest, "import asyncio\nasync def answer():\n    await asyncio.sleep(0.01)\n    return 42")
    assert (await run_cell(guest, "y = await answer()\ny")).text == "42"


async def test_exit_is_an_error_that_keeps_the_state(guest: Guest) -> None:
    cell = await run_cell(guest, "x = 1\nimport sys\nsys.exit(3)")
    assert cell.error is not None
    assert (cell.error.name, cell.error.value, cell.end.state_lost) == ("SystemExit", "3", False)
    assert (await run_cell(guest, "x")).text == "1"


async def test_an_interpreter_that_ends_is_told_and_begins_anew(guest: Guest) -> None:
    cell = await run_cell(guest, "x = 1\nprint('last words')\nimport os\nos._exit(9)")
    assert (cell.end.status, cell.end.state_lost, cell.end.exit_code) == ("lost", True, 9)
    assert cell.printed() == "last words\n"
    again = await run_cell(guest, "x")
    assert again.error is not None
    assert (again.error.name, again.end.state_lost, again.end.execution_count) == ("NameError", False, 1)


async def test_an_interpreter_that_ends_between_runs_is_told_with_the_next(guest: Guest) -> None:
    await run_cell(guest, "import os, threading\nthreading.Timer(0.05, os._exit, [7]).start()")
    await anyio.sleep(0.4)
    cell = await run_cell(guest, "1")
    assert (cell.end.status, cell.end.state_lost) == ("ok", True)
    assert not (await run_cell(guest, "1")).end.state_lost


@pytest.mark.parametrize(
    ("lang", "before", "loop", "after"),
    [
        ("python", "x = 5", "while True: pass", "x"),
        ("python", "x = 5", "import time; time.sleep(60)", "x"),
        ("bash", "x=5", "while :; do sleep 0.02; done; echo no", "echo $x"),
        ("bash", "x=5", "sleep 60; echo no", "echo $x"),
        ("javascript", "let x = 5", "for (;;) {}", "x"),
        ("javascript", "let x = 5", "await new Promise(() => {})", "x"),
    ],
)
async def test_a_timeout_interrupts_and_keeps_the_state(
    guest: Guest, lang: str, before: str, loop: str, after: str
) -> None:
    if lang != "python":
        await _other(guest, lang)
    context = "default" if lang == "python" else lang
    await run_cell(guest, before, context=context)
    cell = await run_cell(guest, loop, context=context, timeout_s=0.4)
    assert (cell.end.status, cell.end.state_lost, cell.printed()) == ("timeout", False, "")
    last = await run_cell(guest, after, context=context)
    assert (last.text or last.printed().strip()) == "5"


async def test_a_timeout_that_does_not_help_kills_and_says_so(guest: Guest) -> None:
    stubborn = "import time\nwhile True:\n    try:\n        time.sleep(9)\n    except KeyboardInterrupt:\n        pass"
    cell = await run_cell(guest, stubborn, timeout_s=0.3)
    assert (cell.end.status, cell.end.state_lost) == ("timeout", True)
    assert (await run_cell(guest, "1 + 1")).text == "2"


async def test_an_interrupt_ends_what_runs_and_only_the_named_run(guest: Guest) -> None:
    ends: list[str] = []

    async def sleeper() -> None:
        ends.append((await run_cell(guest, "import time; time.sleep(60)", nonce="mine")).end.status)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sleeper)
        await anyio.sleep(0.3)
        assert (await guest.list_contexts())[0].busy
        assert not await guest.interrupt_context("default", nonce="another")
        assert ends == []
        assert await guest.interrupt_context("default", nonce="mine")
    assert ends == ["interrupted"]
    assert not await guest.interrupt_context("default")


async def test_a_caller_that_goes_away_interrupts_its_run_and_keeps_the_state(guest: Guest) -> None:
    await run_cell(guest, "x = 1")
    with anyio.move_on_after(0.3):
        await run_cell(guest, "import time; time.sleep(60)")
    with anyio.fail_after(20):
        assert (await run_cell(guest, "x")).text == "1"


async def test_runs_of_one_context_take_turns_and_too_many_are_refused(guest: Guest) -> None:
    seen: list[str] = []
    refused = 0

    async def one(number: int) -> None:
        nonlocal refused
        try:
            seen.append((await run_cell(guest, str(number))).text or "")
        except BusyError:
            refused += 1

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run_cell, guest, "import time; time.sleep(2)")
        await anyio.sleep(0.5)
        for number in range(24):
            tasks.start_soon(one, number)
    assert refused == 24 - 16
    assert len(set(seen)) == 16


async def test_contexts_share_files_and_nothing_else(guest: Guest) -> None:
    await guest.create_context("second", lang="python", env={"WHO": "second"})
    await run_cell(guest, "x = 1\nopen('shared.txt', 'w').write('here')")
    cell = await run_cell(guest, "import os\nprint(open('shared.txt').read(), os.environ['WHO'])\nx", context="second")
    assert cell.printed() == "here second\n"
    assert cell.error is not None
    assert cell.error.name == "NameError"
    assert [context.id for context in await guest.list_contexts()] == ["default", "second"]


async def test_contexts_are_restarted_and_removed(guest: Guest) -> None:
    await run_cell(guest, "x = 1")
    await guest.restart_context("default")
    assert (await run_cell(guest, "'x' in dir()")).text == "False"
    await guest.remove_context("default")
    with pytest.raises(NotFoundError, match="no context default"):
        await run_cell(guest, "1")
    assert await guest.list_contexts() == []


async def test_a_context_that_is_removed_before_it_is_ready_is_told(guest: Guest) -> None:
    refusals: list[str] = []

    async def create() -> None:
        try:
            await guest.create_context("late", lang="python", env={"PYTHONWARNINGS": "default"})
        except InvalidRequestError as error:
            refusals.append(error.message)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(create)
        with anyio.fail_after(20):
            while "late" not in [context.id for context in await guest.list_contexts()]:
                await anyio.lowlevel.checkpoint()
        await guest.remove_context("late")
    assert refusals in ([], ["it was removed before it was ready"])
    assert [context.id for context in await guest.list_contexts()] == ["default"]


async def test_a_restart_ends_what_runs(guest: Guest) -> None:
    ends: list[tuple[str, str]] = []

    async def sleeper() -> None:
        end = (await run_cell(guest, "import time; time.sleep(60)")).end
        ends.append((end.status, end.reason))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sleeper)
        await anyio.sleep(0.3)
        await guest.restart_context("default")
    assert ends == [("lost", "restarted")]


async def test_what_cannot_be_a_context_is_refused_by_name(guest: Guest) -> None:
    with pytest.raises(FilePresentError, match="default"):
        await guest.create_context("default", lang="python")
    with pytest.raises(InvalidRequestError, match="No such file"):
        await guest.create_context("lost", lang="python", cwd="/nowhere")
    with pytest.raises(InvalidRequestError, match="No such file"):
        await guest.create_context("lost", lang="bash", cwd="/nowhere")
    assert [context.id for context in await guest.list_contexts()] == ["default"]


async def test_variables_of_one_run_are_gone_with_the_next(guest: Guest) -> None:
    await guest.create_context("bash", lang="bash")
    value = "a'b \\ \n\"c$HOME"
    assert (await run_cell(guest, "import os\nos.environ['ONE']", env={"ONE": value})).text == repr(value)
    assert (await run_cell(guest, "'ONE' in os.environ")).text == "False"
    assert (await run_cell(guest, "env | grep -c ^ONE", context="bash", env={"ONE": "1"})).printed() == "1\n"
    assert (await run_cell(guest, 'printf %s "$ONE"', context="bash", env={"ONE": value})).printed() == value
    assert (await run_cell(guest, "echo [$ONE]", context="bash")).printed() == "[]\n"


async def test_bash_keeps_directory_variables_and_functions_and_tells_the_last_code(guest: Guest) -> None:
    await guest.create_context("bash", lang="bash")

    async def bash(code: str) -> tuple[str, str, int | None]:
        cell = await run_cell(guest, code, context="bash")
        return cell.printed(), cell.end.status, cell.end.exit_code

    assert await bash("mkdir -p d; cd d; x='it'\\''s'\nhello() {\n  echo \"hello $1\" # not part of it\n}") == (
        "",
        "ok",
        0,
    )
    assert await bash('basename "$PWD"; hello "$x"') == ("d\nhello it's\n", "ok", 0)
    assert await bash("cat <<E\nx is $x\nE\nfalse") == ("x is it's\n", "error", 1)
    assert await bash("if") == ("", "error", 2)
    assert await bash("echo '\ud800'") == ("?\n", "ok", 0)
    assert await bash('read line; echo "[$line]"') == ("[]\n", "ok", 0)
    assert (await bash("exit 4"))[1:] == ("lost", 4)
    assert await bash('echo "[$x]"') == ("[]\n", "ok", 0)


async def test_javascript_keeps_names_awaits_and_shows_the_last_value(guest: Guest) -> None:
    await _other(guest, "javascript")

    async def js(code: str) -> str | None:
        return (await run_cell(guest, code, context="javascript")).text

    assert await js("const list = [1, 2]; let total = 0; function add(n) { total += n; return total }") is None
    assert await js("list.forEach(add); total") == "3"
    assert await js("const later = await Promise.resolve(7)") is None
    assert await js("later + 1") == "8"
    cell = await run_cell(guest, "console.log('out'); console.error('err'); ({ a: 1 })", context="javascript")
    assert (cell.printed(), cell.printed("stderr")) == ("out\n", "err\n")
    assert cell.results[0].data["application/json"] == {"a": 1}
    failed = await run_cell(guest, "null.x", context="javascript")
    assert failed.error is not None
    assert (failed.error.name, failed.end.status) == ("TypeError", "error")
    assert "node.js" not in failed.error.traceback
    assert ((await run_cell(guest, "let (", context="javascript")).error or failed.error).name == "SyntaxError"


async def test_output_is_seen_while_code_runs_also_without_the_end_of_a_line(guest: Guest) -> None:
    seen: list[bytes] = []
    enough = anyio.Event()

    async def on_event(event: CodeEvent) -> None:
        if isinstance(event, CodeOutput):
            seen.append(event.data)
            enough.set()

    async with anyio.create_task_group() as tasks:
        request = CodeRequest(
            context_id="default", code="print('tick', end='')\nimport time; time.sleep(60)", nonce="n"
        )
        tasks.start_soon(lambda: guest.run_code(request, on_event=on_event))
        with anyio.fail_after(20):
            await enough.wait()
        tasks.cancel_scope.cancel()
    assert seen == [b"tick"]


async def test_output_beyond_the_limit_is_dropped_and_counted(guest: Guest) -> None:
    cell = await run_cell(guest, "print('x' * 9999)\nprint('y')", output_bytes=1000)
    assert (len(cell.printed()), cell.end.truncated, cell.end.usage.stdout_bytes) == (1000, True, 10002)


async def test_what_children_and_c_code_write_is_output_too(guest: Guest) -> None:
    cell = await run_cell(guest, "import os, subprocess\nsubprocess.run(['echo', 'child'])\nos.write(2, b'raw')")
    assert (cell.printed(), cell.printed("stderr")) == ("child\n", "raw")


async def test_output_of_a_thread_that_goes_on_is_told_with_the_next_run(guest: Guest) -> None:
    await run_cell(guest, "import threading\nthreading.Timer(0.05, print, ['late']).start()")
    await anyio.sleep(0.3)
    assert (await run_cell(guest, "print('next')")).printed() == "late\nnext\n"


async def test_a_reader_that_does_not_read_holds_up_its_run_and_nobody_else(guest: Guest) -> None:
    await guest.create_context("second", lang="python")
    go_on = anyio.Event()
    count = 0

    async def slowly(event: CodeEvent) -> None:
        nonlocal count
        await go_on.wait()
        count += len(event.data) if isinstance(event, CodeOutput) else 0

    async with anyio.create_task_group() as tasks:
        code = "import sys\nfor _ in range(200): sys.stdout.write('x' * 50000)"
        request = CodeRequest(context_id="default", code=code, nonce="n", output_bytes=1 << 30)
        tasks.start_soon(lambda: guest.run_code(request, on_event=slowly))
        await anyio.sleep(0.3)
        assert (await run_cell(guest, "1 + 1", context="second")).text == "2"
        assert count == 0
        go_on.set()
    assert count == 200 * 50000
