"""The public API as type checkers see it. Checked by `test_api.py`, never run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, assert_type

from mayfly import AsyncRunner, AsyncSandbox, CodeExecution, Execution, Limits, Result, Runner, Sandbox, arun, run
from mayfly.client import AsyncCommand, Command, Forward
from mayfly.errors import CapacityError, MayflyError
from mayfly.file_model import FileInfo
from mayfly.model import HostInfo, Status
from mayfly.sandbox_model import CodeStatus, CommandResult, ContextInfo, SandboxInfo

if TYPE_CHECKING:
    from mayfly.client import CodeOptions, RunOptions, SandboxOptions


def blocking() -> None:
    execution = run("print(1)", lang="python", timeout_s=5, mem_mib=256, args=("a",), env={"A": "b"}, stdin="x")
    assert_type(execution, Execution)
    assert_type(execution.status, Status)
    assert_type(execution.stdout, str)
    assert_type(execution.host, HostInfo | None)
    assert_type(execution.ok, bool)
    heard: list[str] = []
    run("x", on_stdout=print, on_stderr=heard.append)
    with Runner(lang="bash", mem_mib=512) as runner:
        assert_type(runner, Runner)
        assert_type(runner.run("uname", timeout_s=2), Execution)


async def asynchronous() -> None:
    async def hear(text: str) -> None:
        del text

    assert_type(await arun("x", on_stdout=hear), Execution)
    async with AsyncRunner(policy="strict") as runner:
        assert_type(await runner.run("x", env=None), Execution)


def sandboxes() -> None:
    with Sandbox(timeout_s=60, limits=Limits(mem_mib=512), metadata={"a": "b"}) as sandbox:
        assert_type(sandbox, Sandbox)
        execution = sandbox.run_code("1", language="python", on_stdout=print, on_result=lambda result: result.png)
        assert_type(execution, CodeExecution)
        assert_type(execution.status, CodeStatus)
        assert_type(execution.text, str | None)
        assert_type(execution.results, tuple[Result, ...])
        assert_type(execution.results[0].chart, dict[str, Any] | None)
        assert_type(sandbox.create_context("bash"), ContextInfo)
        assert_type(sandbox.files.read("a"), str)
        assert_type(sandbox.files.read("a", format="bytes"), bytes)
        assert_type(sandbox.files.stream("a"), Iterator[bytes])
        assert_type(sandbox.files.list(), Sequence[FileInfo])
        assert_type(sandbox.commands.run("ls"), CommandResult)
        assert_type(sandbox.commands.run(["ls"], background=True), Command)
        assert_type(sandbox.expose(80), Forward)
        with sandbox.pty.open() as terminal:
            assert_type(terminal.receive(), bytes | None)
    assert_type(Sandbox.create(image="python"), Sandbox)
    assert_type(Sandbox.list(), Sequence[SandboxInfo])


async def asynchronous_sandboxes() -> None:
    async def hear(text: str) -> None:
        del text

    async with await AsyncSandbox.create(idle_timeout_s=60) as sandbox:
        assert_type(await sandbox.run_code("1", on_stdout=hear), CodeExecution)
        assert_type(await sandbox.commands.run("ls", stdin="x"), CommandResult)
        assert_type(await sandbox.commands.run("ls", background=True, stdin=True), AsyncCommand)
        assert_type(await sandbox.files.read("a", format="bytes"), bytes)
        async with sandbox.files.open_stream("a") as chunks:
            async for chunk in chunks:
                assert_type(chunk, bytes)


def options() -> None:
    wanted: SandboxOptions = {"image": "python", "limits": {"mem_mib": 512}}
    Sandbox(**wanted)
    code: CodeOptions = {"language": "bash", "timeout_s": 5}
    Sandbox().run_code("x", **code)
    shared: RunOptions = {"timeout_s": 1.5, "vcpus": 2}
    run("x", **shared)
    assert_type(Limits().timeout_s, float)


def errors(error: MayflyError) -> None:
    assert_type(error.retryable, bool)
    assert_type(error.field, str | None)
    if isinstance(error, CapacityError):
        assert_type(error.retry_after_s, float)


def wrong() -> None:
    run("x", lang="ruby")  # type: ignore[arg-type]
    run("x", timeout="5")  # type: ignore[call-arg]
    run(b"x")  # type: ignore[arg-type]
    run("x", on_stdout=5)  # type: ignore[arg-type]
    Sandbox(lang="ruby")  # type: ignore[arg-type]
    Sandbox(memory=5)  # type: ignore[call-arg]
    Sandbox().run_code(b"x")  # type: ignore[arg-type]
    Sandbox().files.read("a", format="pdf")  # type: ignore[call-overload]
