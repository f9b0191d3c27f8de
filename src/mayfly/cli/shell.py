"""`mayfly shell`: an interactive terminal in a sandbox."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import click

from mayfly.cli.sandboxes import node_option, opened, waited

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mayfly.client.sandbox import AsyncSandbox
    from mayfly.client.terminal import AsyncTerminal

__all__ = ["shell"]


@click.command(short_help="Open a terminal in a sandbox.")
@click.argument("sandbox_id", required=False, metavar="[ID]")
@click.option("--image", metavar="NAME", help="Image of a new sandbox (python).")
@click.option("--template", metavar="KEY", help="Template of a new sandbox, in place of image and memory.")
@click.option("--timeout", type=float, metavar="SECONDS", help="A new sandbox ends after this long (3600).")
@click.option("--mem", type=int, metavar="MIB", help="Memory of a new sandbox (256).")
@click.option("--detach", is_flag=True, help="Make a sandbox, print its id, and leave it running.")
@node_option
def shell(sandbox_id: str | None, **options: Any) -> int:
    """Open a terminal in the sandbox ID; without one, in a new sandbox that ends with the terminal.

    The exit code is the shell's. With --detach no terminal is opened: use exec, cp, logs and kill with the id.
    """
    new = {name: options[name] for name in ("image", "template", "timeout", "mem") if options[name] is not None}
    if sandbox_id is not None and (new or options["detach"]):
        raise click.UsageError(
            "--image, --template, --timeout, --mem and --detach are for a new sandbox, not for one that runs"
        )
    if options["detach"]:
        return waited(_detached(new, options["node"]))
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError("shell needs a terminal; mayfly exec runs commands without one")
    return waited(_shell(sandbox_id, new, options["node"]))


async def _made(new: dict[str, Any], node: str | None) -> AsyncSandbox:
    from mayfly.cli.report import Progress
    from mayfly.client.sandbox import AsyncSandbox

    progress = Progress()
    given: dict[str, Any] = {name: new[name] for name in ("image", "template") if name in new}
    given |= {"timeout_s": new["timeout"]} if "timeout" in new else {}
    given |= {"limits": {"mem_mib": new["mem"]}} if "mem" in new else {}
    progress.say("making a sandbox")
    try:
        return await AsyncSandbox.create(node=node, **given)
    finally:
        progress.close()


async def _detached(new: dict[str, Any], node: str | None) -> int:
    click.echo((await _made(new, node)).id)
    return 0


async def _shell(sandbox_id: str | None, new: dict[str, Any], node: str | None) -> int:
    if sandbox_id is not None:
        async with opened(sandbox_id, node) as sandbox:
            return await _terminal(sandbox)
    async with await _made(new, node) as sandbox:
        return await _terminal(sandbox)


async def _terminal(sandbox: AsyncSandbox) -> int:
    import anyio

    from mayfly.host.tasks import single_error

    cols, rows = _size()
    term = os.environ.get("TERM", "xterm")
    async with sandbox.pty.open(cols=cols, rows=rows, envs={"TERM": term}) as terminal:
        with _raw(), single_error():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_type, terminal)
                tasks.start_soon(_follow_size, terminal)
                await _show(terminal)
                tasks.cancel_scope.cancel()
        return terminal.end.exit_code if terminal.end else 125


@contextlib.contextmanager
def _raw() -> Iterator[None]:
    """Keys go to the sandbox as they are typed; the terminal is as before at the end, however it comes."""
    import termios
    import tty

    before = termios.tcgetattr(0)
    try:
        tty.setraw(0, termios.TCSADRAIN)  # what was typed ahead stays
        yield
    finally:
        with contextlib.suppress(termios.error):  # it has been closed
            termios.tcsetattr(0, termios.TCSADRAIN, before)


async def _type(terminal: AsyncTerminal) -> None:
    from mayfly.cli.stdio import input_chunks

    async for chunk in input_chunks():
        await terminal.send(chunk)


async def _show(terminal: AsyncTerminal) -> None:
    from mayfly.cli.stdio import write_all

    while (data := await terminal.receive()) is not None:
        await write_all(1, data)


async def _follow_size(terminal: AsyncTerminal) -> None:
    import anyio

    with anyio.open_signal_receiver(signal.SIGWINCH) as resized:
        async for _ in resized:
            await terminal.resize(*_size())


def _size() -> tuple[int, int]:
    """Columns and rows; a terminal that nobody told its size has 0 of both."""
    cols, rows = os.get_terminal_size()
    return cols or 80, rows or 24
