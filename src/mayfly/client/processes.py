"""The blocking faces of commands and terminals; see `mayfly.client.faces`."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

from mayfly.client.blocking import Callbacks, call, iterate, shared_portal
from mayfly.client.terminal import SHELL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from mayfly.client.commands import AsyncCommand, AsyncCommands, CommandOptions
    from mayfly.client.terminal import AsyncPty, AsyncTerminal
    from mayfly.sandbox_model import (
        CommandEnd,
        CommandEnded,
        CommandGap,
        CommandInfo,
        CommandOutput,
        CommandResult,
    )

    OnText = Callable[[str], object]

__all__ = ["Command", "Commands", "Pty", "Terminal"]


class Command:
    """A process in the sandbox. It runs on when nobody follows it; the last of its output is kept for later."""

    def __init__(self, core: AsyncCommand) -> None:
        self._core = core
        self.pid = core.pid

    @property
    def offset(self) -> int:
        """Bytes of output, over both streams, that were read by this object; where it goes on."""
        return self._core.offset

    def events(self) -> Iterator[CommandOutput | CommandGap | CommandEnded]:
        """Output as it comes, and the end; `gap` for output that was not kept until now."""
        return iterate(lambda: contextlib.aclosing(self._core.events()))

    def wait(self, *, on_stdout: OnText | None = None, on_stderr: OnText | None = None) -> CommandResult:
        """Follow it to its end. The result has the output from where this object began, up to the sandbox's limit."""
        heard = Callbacks()
        return heard.run(partial(self._core.wait, on_stdout=heard.here(on_stdout), on_stderr=heard.here(on_stderr)))

    def send_stdin(self, data: str | bytes, *, eof: bool = False) -> None:
        """Give it input, which it must have been started with (`stdin=True`); `eof` ends the input after that."""
        call(partial(self._core.send_stdin, data, eof=eof))

    def close_stdin(self) -> None:
        """End its input."""
        call(self._core.close_stdin)

    def kill(self, signal: str = "SIGKILL") -> bool:
        """Send a signal to it and what it started; False when it had ended."""
        return call(partial(self._core.kill, signal))

    def resize(self, cols: int, rows: int) -> None:
        """The new size of its terminal, for one that was started with a terminal."""
        call(partial(self._core.resize, cols, rows))

    def __repr__(self) -> str:
        return f"Command(pid={self.pid})"


class Commands:
    """Commands of one sandbox, run as its user."""

    def __init__(self, core: AsyncCommands) -> None:
        self._core = core

    @overload
    def run(
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
    def run(
        self,
        cmd: str | Sequence[str],
        *,
        background: Literal[True],
        stdin: str | bytes | bool = ...,
        **options: Unpack[CommandOptions],
    ) -> Command: ...
    def run(
        self,
        cmd: str | Sequence[str],
        *,
        background: bool = False,
        stdin: str | bytes | bool = False,
        on_stdout: OnText | None = None,
        on_stderr: OnText | None = None,
        **options: Unpack[CommandOptions],
    ) -> CommandResult | Command:
        """Run a line of bash, or a list of arguments, and wait for its end; an exit code other than 0 is no error.

        With `background` it is returned as it runs: `wait`, `kill`, `send_stdin` it. `stdin` is its whole input; True
        keeps the input open for `send_stdin`. Ctrl-C kills a command that is waited for. What the scan refuses is
        status `denied`, or DeniedError in the background.
        """
        if background:
            started: Any = partial(self._core.run, cmd, background=True, stdin=stdin, **options)
            return Command(call(started))
        heard = Callbacks()
        work = partial(
            self._core.run,
            cmd,
            stdin=stdin,
            on_stdout=heard.here(on_stdout),
            on_stderr=heard.here(on_stderr),
            **options,
        )
        return heard.run(work)

    def connect(self, pid: int, *, offset: int = 0) -> Command:
        """A command that was started before, by its pid; what is kept of its output comes from `offset` on."""
        return Command(call(partial(self._core.connect, pid, offset=offset)))

    def list(self) -> Sequence[CommandInfo]:
        """Commands that run, and those that ended not long ago."""
        return call(self._core.list)

    def kill(self, pid: int, signal: str = "SIGKILL") -> bool:
        """Send a signal to a command and what it started; False when there is none."""
        return call(partial(self._core.kill, pid, signal))

    def send_stdin(self, pid: int, data: str | bytes, *, eof: bool = False) -> None:
        """Give a command input; see `Command.send_stdin`."""
        call(partial(self._core.send_stdin, pid, data, eof=eof))


class Terminal:
    """An open terminal: `for data in terminal` gives what it shows, `send` types into it."""

    def __init__(self, core: AsyncTerminal) -> None:
        self._core = core
        self.pid = core.pid

    @property
    def end(self) -> CommandEnd | None:
        """How its process ended, once it has."""
        return self._core.end

    def __iter__(self) -> Iterator[bytes]:
        while (data := self.receive()) is not None:
            yield data

    def receive(self) -> bytes | None:
        """The next bytes it shows, None once its process has ended. NodeLostError when the connection broke."""
        return call(self._core.receive)

    def send(self, data: str | bytes) -> None:
        """Type into it."""
        call(partial(self._core.send, data))

    def resize(self, cols: int, rows: int) -> None:
        """Its new size in characters."""
        call(partial(self._core.resize, cols, rows))

    def kill(self, signal: str = "SIGKILL") -> bool:
        """Send its process a signal; False when it had ended."""
        return call(partial(self._core.kill, signal))

    def wait(self, on_data: Callable[[bytes], object] | None = None) -> CommandEnd:
        """Follow it to the end of its process."""
        heard = Callbacks()
        return heard.run(partial(self._core.wait, heard.here(on_data)))


class Pty:
    """Terminals of one sandbox."""

    def __init__(self, core: AsyncPty) -> None:
        self._core = core

    @contextlib.contextmanager
    def open(
        self,
        cmd: str | Sequence[str] = SHELL,
        *,
        cols: int = 80,
        rows: int = 24,
        **options: Unpack[CommandOptions],
    ) -> Iterator[Terminal]:
        """Start a process (by default a shell) behind a terminal: `with sandbox.pty.open() as terminal`.

        Leaving the block ends the process. DeniedError where the scan refuses the command.
        """
        opened = self._core.open(cmd, cols=cols, rows=rows, **options)
        with shared_portal().wrap_async_context_manager(opened) as terminal:
            yield Terminal(terminal)

    def start(
        self, cmd: str | Sequence[str] = SHELL, *, cols: int = 80, rows: int = 24, **options: Unpack[CommandOptions]
    ) -> int:
        """As `open`, without following it: the pid, for `connect`. The process lives until it ends or is killed."""
        work: Any = partial(self._core.start, cmd, cols=cols, rows=rows, **options)
        pid: int = call(work)
        return pid

    @contextlib.contextmanager
    def connect(self, pid: int, *, offset: int = 0) -> Iterator[Terminal]:
        """The terminal of a process that runs; what is kept of its output comes from `offset` on."""
        with shared_portal().wrap_async_context_manager(self._core.connect(pid, offset=offset)) as terminal:
            yield Terminal(terminal)
