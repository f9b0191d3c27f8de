"""Terminals in a sandbox: a process behind a pseudo-terminal, its bytes over a WebSocket."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Unpack

import msgspec

from mayfly.client.commands import AsyncCommand, start_in_background, start_request
from mayfly.errors import NodeError
from mayfly.sandbox_model import CommandEnd, CommandEnded, CommandGap, TerminalSize
from mayfly.validation import convert_values

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from mayfly.client.calls import SandboxCalls
    from mayfly.client.commands import CommandOptions
    from mayfly.client.websocket import WebSocket

__all__ = ["SHELL", "AsyncPty", "AsyncTerminal"]

SHELL = ("/bin/bash", "-i", "-l")
"""What a terminal runs when nothing else is said."""

_EVENTS = msgspec.json.Decoder(CommandGap | CommandEnded)


class AsyncTerminal:
    """An open terminal: `async for data in terminal` gives what it shows, `send` types into it."""

    def __init__(self, socket: WebSocket, calls: SandboxCalls, pid: int) -> None:
        self._socket = socket
        self._calls = calls
        self.pid = pid
        self.end: CommandEnd | None = None
        """How its process ended, once it has."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._output()

    async def _output(self) -> AsyncIterator[bytes]:
        while (data := await self.receive()) is not None:
            yield data

    async def receive(self) -> bytes | None:
        """The next bytes it shows, None once its process has ended. NodeLostError when the connection broke."""
        while self.end is None:
            message = await self._socket.receive()
            if message is None:
                raise NodeError("the node closed the terminal before its end", sandbox_id=self._calls.id)
            if isinstance(message, bytes):
                return message[1:]  # the first byte says which stream, and a terminal has one
            self._heard(message)
        return None

    def _heard(self, message: str) -> None:
        try:
            event = _EVENTS.decode(message)
        except (msgspec.MsgspecError, UnicodeEncodeError) as error:
            raise NodeError(
                f"the node sent what this client does not understand: {error}",
                retryable=False,
                sandbox_id=self._calls.id,
            ) from None
        if isinstance(event, CommandEnded):
            self.end = event.end

    async def send(self, data: str | bytes) -> None:
        """Type into it."""
        await self._socket.send(data.encode() if isinstance(data, str) else data)

    async def resize(self, cols: int, rows: int) -> None:
        """Its new size in characters."""
        size = convert_values({"cols": cols, "rows": rows}, TerminalSize)
        await self._tell({"resize": size})

    async def kill(self, signal: str = "SIGKILL") -> bool:
        """Send its process a signal; False when it had ended."""
        return await AsyncCommand(self._calls, self.pid).kill(signal)

    async def wait(self, on_data: Callable[[bytes], object] | None = None) -> CommandEnd:
        """Follow it to the end of its process."""
        import inspect

        while (data := await self.receive()) is not None:
            outcome = on_data(data) if on_data is not None else None
            if inspect.isawaitable(outcome):
                await outcome
        if self.end is None:
            raise NodeError("the terminal ended without saying how", sandbox_id=self._calls.id)
        return self.end

    async def _tell(self, message: dict[str, Any]) -> None:
        await self._socket.send(msgspec.json.encode(message).decode())


class AsyncPty:
    """Terminals of one sandbox."""

    def __init__(self, live: Callable[[], SandboxCalls]) -> None:
        self._live = live

    @contextlib.asynccontextmanager
    async def open(
        self,
        cmd: str | Sequence[str] = SHELL,
        *,
        cols: int = 80,
        rows: int = 24,
        **options: Unpack[CommandOptions],
    ) -> AsyncIterator[AsyncTerminal]:
        """Start a process (by default a shell) behind a terminal: `async with sandbox.pty.open() as terminal`.

        Leaving the block ends the process. DeniedError where the scan refuses the command.
        """
        async with self.connect(await self.start(cmd, cols=cols, rows=rows, **options)) as terminal:
            try:
                yield terminal
            finally:
                if terminal.end is None:
                    await _ended(terminal)

    async def start(
        self, cmd: str | Sequence[str] = SHELL, *, cols: int = 80, rows: int = 24, **options: Unpack[CommandOptions]
    ) -> int:
        """As `open`, without following it: the pid, for `connect`. The process lives until it ends or is killed."""
        calls = self._live()
        size = convert_values({"cols": cols, "rows": rows}, TerminalSize)
        size_fields = {"cols": size.cols, "rows": size.rows}
        request = start_request(cmd, options, pty=size_fields, background=True, stdin=True)
        return await start_in_background(calls, request)

    @contextlib.asynccontextmanager
    async def connect(self, pid: int, *, offset: int = 0) -> AsyncIterator[AsyncTerminal]:
        """The terminal of a process that runs; what is kept of its output comes from `offset` on."""
        calls = self._live()
        async with calls.socket(f"/commands/{pid}/socket", query={"from": offset}) as socket:
            yield AsyncTerminal(socket, calls, pid)


async def _ended(terminal: AsyncTerminal) -> None:
    import anyio

    from mayfly.errors import MayflyError

    with anyio.move_on_after(5.0, shield=True), contextlib.suppress(MayflyError):
        await terminal.kill()
