"""What the commands about sandboxes share: finding one by its id, and waiting for asynchronous work."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mayfly.cli.failure import BROKEN_PIPE, INTERRUPTED, show_failure

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from mayfly.client.sandbox import AsyncSandbox

__all__ = ["duration", "node_option", "opened", "waited"]

T = TypeVar("T")

_UNITS = (("d", 86400), ("h", 3600), ("min", 60))


def node_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """The option `--node`, as everywhere."""
    text = "The node to ask: unix:PATH or http://HOST:PORT."
    option: Callable[[Callable[..., Any]], Callable[..., Any]] = click.option("--node", metavar="ADDRESS", help=text)
    return option(command)


def waited(work: Coroutine[Any, Any, int]) -> int:
    """Run a command's work to its exit code; Ctrl-C cancels it and is 130, a reader that left 141.

    SIGTERM, and SIGHUP as of a terminal that was closed, cancel it too; then they end this process as they would have.
    """
    from mayfly.host.eventloop import run

    told: list[int] = []
    try:
        return run(_until_told(work, told))
    except asyncio.CancelledError:
        if told:
            signal.signal(told[0], signal.SIG_DFL)
            os.kill(os.getpid(), told[0])
        raise
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError as error:
        show_failure(error)
        return BROKEN_PIPE


async def _until_told(work: Coroutine[Any, Any, int], told: list[int]) -> int:
    task = asyncio.current_task()

    def end(signum: int) -> None:
        if task is not None and not told:  # the clean-up that follows is not to be cancelled
            told.append(signum)
            task.cancel()

    for signum in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(signum) is signal.SIG_DFL:  # nohup has it ignored
            asyncio.get_running_loop().add_signal_handler(signum, end, signum)
    return await work


@contextlib.asynccontextmanager
async def opened(sandbox_id: str, node: str | None) -> AsyncIterator[AsyncSandbox]:
    """The sandbox of that id, left alone at the end; click.UsageError when the node knows none."""
    from mayfly.client.sandbox import AsyncSandbox
    from mayfly.errors import NotFoundError

    try:
        found = await AsyncSandbox.connect(sandbox_id, node=node)
    except NotFoundError:
        raise click.UsageError(f"there is no sandbox {sandbox_id!r}; mayfly ps lists them") from None
    async with found as sandbox:
        yield sandbox


def duration(seconds: float) -> str:
    """`42 s`, `3 min`, `2 h`, `5 d`: roughly, for people."""
    for unit, size in _UNITS:
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
