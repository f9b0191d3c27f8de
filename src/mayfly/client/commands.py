"""Processes in a sandbox: started, followed, fed and ended; found again after a lost connection."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack, overload

import anyio
import msgspec

from mayfly.client.calls import Stream, about
from mayfly.client.text import TextRelay, written_bytes
from mayfly.errors import DeniedError, MayflyError, NodeError, NotFoundError, SandboxError
from mayfly.host.tasks import single_error
from mayfly.sandbox_model import (
    CommandAccepted,
    CommandEnd,
    CommandEnded,
    CommandEvent,
    CommandGap,
    CommandInfo,
    CommandOutput,
    CommandResult,
    ResizeTerminal,
    SignalCommand,
    StartCommand,
)
from mayfly.validation import convert_values

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping, Sequence

    from mayfly.client.calls import SandboxCalls

    OnText = Callable[[str], object]

__all__ = ["AsyncCommand", "AsyncCommands", "CommandOptions", "start_in_background", "start_request"]

_EVENTS = msgspec.json.Decoder(CommandEvent)
_LINE_BYTES = 8 * 1024 * 1024
_KILL_S = 5.0
_START_S = 60.0


class CommandOptions(TypedDict, total=False):
    """Options of a command. `envs` are added to the sandbox's; it is killed after `timeout_s`.

    `approve` names findings of the scan (`RULE@LINE:COLUMN`) that you take responsibility for, where the policy asks.
    """

    cwd: str | None
    envs: Mapping[str, str] | None
    timeout_s: float | None
    approve: Sequence[str]


def start_request(cmd: str | Sequence[str], options: CommandOptions, **more: Any) -> StartCommand:
    """The request, checked as the node checks it; InvalidRequestError naming the field."""
    given: dict[str, Any] = dict(options)
    if unknown := set(given) - CommandOptions.__optional_keys__:
        raise TypeError(f"run() got an unexpected keyword argument {min(unknown)!r}")
    given |= {"envs": dict(given.get("envs") or {}), "approve": list(given.get("approve") or ())}
    given |= {"cmd": cmd} if isinstance(cmd, str) else {"args": list(cmd)}
    return convert_values(given | more, StartCommand)


class _Collected:
    """What a command wrote, up to the bound, and who hears of it."""

    def __init__(self, output_bytes: int, on_stdout: OnText | None, on_stderr: OnText | None) -> None:
        self._kept = {"stdout": bytearray(), "stderr": bytearray()}
        self._limit = output_bytes
        self._relay = TextRelay({"stdout": on_stdout, "stderr": on_stderr})
        self.truncated = False

    async def take(self, event: CommandOutput) -> None:
        kept = self._kept[event.stream]
        data = written_bytes(event)
        room = self._limit - len(kept)
        kept += data[:room] if room > 0 else b""
        self.truncated |= len(data) > max(room, 0)
        await self._relay.take(event)

    async def result(self, pid: int | None, end: CommandEnd) -> CommandResult:
        await self._relay.finish()
        return CommandResult(
            status=end.status,
            exit_code=end.exit_code,
            pid=pid,
            stdout=self._kept["stdout"].decode("utf-8", "replace"),
            stderr=self._kept["stderr"].decode("utf-8", "replace"),
            truncated=self.truncated,
            signal=end.signal,
            failure=end.failure,
            scan=end.scan,
            usage=end.usage,
        )


class AsyncCommand:
    """A process in the sandbox. It runs on when nobody follows it; the last of its output is kept for later."""

    def __init__(self, calls: SandboxCalls, pid: int, *, offset: int = 0) -> None:
        self._calls = calls
        self.pid = pid
        self._offset = offset

    @property
    def offset(self) -> int:
        """Bytes of output, over both streams, that were read by this object; where it goes on."""
        return self._offset

    async def events(self) -> AsyncGenerator[CommandOutput | CommandGap | CommandEnded]:
        """Output as it comes, and the end; `gap` for output that was not kept until now. Dropped connections go on."""
        stream = Stream(
            method="GET",
            path=f"/commands/{self.pid}/events?from={self._offset}",
            decoder=_EVENTS,
            resume=lambda event: f"/commands/{self.pid}/events?from={event.offset}",
            line_bytes=_LINE_BYTES,
            is_last=_is_last,
        )
        async with contextlib.aclosing(self._calls.events(stream)) as events:
            async for event in events:
                self._offset = event.offset
                if isinstance(event, (CommandOutput, CommandGap, CommandEnded)):
                    yield event

    async def wait(self, *, on_stdout: OnText | None = None, on_stderr: OnText | None = None) -> CommandResult:
        """Follow it to its end. The result has the output from where this object began, up to the sandbox's limit."""
        collected = _Collected(self._calls.output_bytes, on_stdout, on_stderr)
        async with contextlib.aclosing(self.events()) as events:
            async for event in events:
                if isinstance(event, CommandOutput):
                    await collected.take(event)
                elif isinstance(event, CommandGap):
                    collected.truncated = True
                else:
                    return await collected.result(self.pid, event.end)
        raise NodeError("the stream of the command ended without its end", sandbox_id=self._calls.id)

    async def send_stdin(self, data: str | bytes, *, eof: bool = False) -> None:
        """Give it input, which it must have been started with (`stdin=True`); `eof` ends the input after that."""
        await _feed(self._calls, self.pid, data, eof=eof)

    async def close_stdin(self) -> None:
        """End its input."""
        await _feed(self._calls, self.pid, b"", eof=True)

    async def kill(self, signal: str = "SIGKILL") -> bool:
        """Send a signal to it and what it started; False when it had ended."""
        return await _signal(self._calls, self.pid, signal)

    async def resize(self, cols: int, rows: int) -> None:
        """The new size of its terminal, for one that was started with a terminal."""
        body = convert_values({"cols": cols, "rows": rows}, ResizeTerminal)
        await self._calls.ask("POST", f"/commands/{self.pid}/resize", body, into=type(None))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(pid={self.pid})"


class AsyncCommands:
    """Commands of one sandbox, run as its user."""

    def __init__(self, live: Callable[[], SandboxCalls]) -> None:
        self._live = live

    @overload
    async def run(
        self,
        cmd: str | Sequence[str],
        *,
        background: Literal[False] = False,
        stdin: str | bytes | bool = ...,
        on_stdout: OnText | None = ...,
        on_stderr: OnText | None = ...,
        **options: Unpack[CommandOptions],
    ) -> CommandResult: ...
    @overload
    async def run(
        self,
        cmd: str | Sequence[str],
        *,
        background: Literal[True],
        stdin: str | bytes | bool = ...,
        **options: Unpack[CommandOptions],
    ) -> AsyncCommand: ...
    async def run(
        self,
        cmd: str | Sequence[str],
        *,
        background: bool = False,
        stdin: str | bytes | bool = False,
        on_stdout: OnText | None = None,
        on_stderr: OnText | None = None,
        **options: Unpack[CommandOptions],
    ) -> CommandResult | AsyncCommand:
        """Run a line of bash, or a list of arguments, and wait for its end; an exit code other than 0 is no error.

        With `background` it is returned as it runs: `wait`, `kill`, `send_stdin` it. `stdin` is its whole input; True
        keeps the input open for `send_stdin`. Cancelling kills a command that is waited for. What the scan refuses is
        status `denied`, or DeniedError in the background.
        """
        calls = self._live()
        request = start_request(cmd, options, stdin=stdin is not False, background=background)
        given = None if isinstance(stdin, bool) else stdin
        if background:
            return await self._start(calls, request, given)
        collected = _Collected(calls.output_bytes, on_stdout, on_stderr)
        return await _follow(calls, request, collected, given)

    async def _start(self, calls: SandboxCalls, request: StartCommand, given: str | bytes | None) -> AsyncCommand:
        command = AsyncCommand(calls, await start_in_background(calls, request))
        if given is not None:
            await command.send_stdin(given, eof=True)
        return command

    async def connect(self, pid: int, *, offset: int = 0) -> AsyncCommand:
        """A command that was started before, by its pid; what is kept of its output comes from `offset` on.

        NotFoundError where there is none.
        """
        if all(command.pid != pid for command in await self.list()):
            raise NotFoundError(f"the sandbox has no command {pid}", field="pid", sandbox_id=self._live().id)
        return AsyncCommand(self._live(), pid, offset=offset)

    async def list(self) -> Sequence[CommandInfo]:
        """Commands that run, and those that ended not long ago."""
        found = await self._live().ask("GET", "/commands", into=dict[str, list[CommandInfo]])
        return found.get("commands", [])

    async def kill(self, pid: int, signal: str = "SIGKILL") -> bool:
        """Send a signal to a command and what it started; False when there is none."""
        return await _signal(self._live(), pid, signal)

    async def send_stdin(self, pid: int, data: str | bytes, *, eof: bool = False) -> None:
        """Give a command input; see `AsyncCommand.send_stdin`."""
        await _feed(self._live(), pid, data, eof=eof)


async def _follow(
    calls: SandboxCalls, request: StartCommand, collected: _Collected, given: str | bytes | None
) -> CommandResult:
    accepted: list[CommandAccepted] = []
    end: CommandEnd | None = None
    stream = Stream(
        method="POST",
        path="/commands?stream=true",
        body=request,
        decoder=_EVENTS,
        resume=lambda event: f"/commands/{accepted[0].pid}/events?from={event.offset}" if accepted else None,
        line_bytes=_LINE_BYTES,
        is_last=_is_last,
    )
    try:
        with single_error():
            async with anyio.create_task_group() as tasks, contextlib.aclosing(calls.events(stream)) as events:
                async for event in events:
                    if isinstance(event, CommandAccepted) and not accepted:
                        accepted.append(event)
                        if given is not None:
                            tasks.start_soon(_feed_all, calls, event.pid, given)
                    elif isinstance(event, CommandOutput):
                        await collected.take(event)
                    elif isinstance(event, CommandGap):
                        collected.truncated = True
                    elif isinstance(event, CommandEnded):
                        end = event.end
                        tasks.cancel_scope.cancel()
                        break
    except BaseException as error:
        if accepted and not isinstance(error, MayflyError):
            with anyio.move_on_after(_KILL_S, shield=True), contextlib.suppress(MayflyError):
                await _signal(calls, accepted[0].pid, "SIGKILL")
        raise
    if end is None:
        raise NodeError("the stream of the command ended without its end", sandbox_id=calls.id)
    return await collected.result(accepted[0].pid if accepted else None, end)


def _is_last(event: object) -> bool:
    return isinstance(event, CommandEnded)


async def start_in_background(calls: SandboxCalls, request: StartCommand) -> int:
    """The pid of the command that `request` starts; DeniedError and SandboxError where none was started."""
    with about(calls.id):
        async with calls.client.open("POST", calls.target("/commands"), request, deadline_s=_START_S) as answer:
            body = await answer.read(limit_bytes=1 << 20, deadline_s=_START_S)
    if answer.status != 201:
        raise _not_started(calls.client.decoded(body, CommandResult), calls)
    return calls.client.decoded(body, CommandInfo).pid


def _not_started(result: CommandResult, calls: SandboxCalls) -> MayflyError:
    if result.status == "denied":
        rules = sorted({finding.rule for finding in result.scan.findings}) if result.scan else []
        return DeniedError(f"the scan refused the command: {', '.join(rules)}", sandbox_id=calls.id)
    said = result.failure.message if result.failure else f"it ended with exit code {result.exit_code}"
    return SandboxError(f"the command could not be started: {said}", sandbox_id=calls.id)


async def _feed_all(calls: SandboxCalls, pid: int, data: str | bytes) -> None:
    with contextlib.suppress(NotFoundError):  # it ended before it took all of its input
        await _feed(calls, pid, data, eof=True)


async def _feed(calls: SandboxCalls, pid: int, data: str | bytes, *, eof: bool) -> None:
    content = data.encode() if isinstance(data, str) else bytes(data)

    async def chunks() -> AsyncGenerator[bytes]:
        for start in range(0, len(content), 1 << 16):
            yield content[start : start + (1 << 16)]

    async with calls.open("POST", f"/commands/{pid}/stdin", chunks(), query={"eof": eof}):
        pass


async def _signal(calls: SandboxCalls, pid: int, signal: str) -> bool:
    body = convert_values({"signal": signal}, SignalCommand)
    try:
        await calls.ask("POST", f"/commands/{pid}/signal", body, into=type(None))
    except NotFoundError:
        return False
    return True
