"""The command line: a table of commands, each in a file of its own that is loaded when it is used."""

from __future__ import annotations

import os
import sys
import threading
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn

import click

import mayfly
from mayfly.cli.failure import INTERRUPTED, exit_code_of, show_failure

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["COMMANDS", "cli", "main"]

COMMANDS = {
    "run": ("mayfly.cli.run", "Run a program in a microVM of its own."),
    "scan": ("mayfly.cli.scan", "Judge a program without running it."),
    "shell": ("mayfly.cli.shell", "Open a terminal in a sandbox."),
    "exec": ("mayfly.cli.exec", "Run a command or code in a sandbox."),
    "cp": ("mayfly.cli.cp", "Copy files into a sandbox and out of it."),
    "logs": ("mayfly.cli.logs", "Say what was done in a sandbox."),
    "kill": ("mayfly.cli.kill", "End sandboxes."),
    "ps": ("mayfly.cli.ps", "Say what a node runs and keeps ready."),
    "serve": ("mayfly.cli.serve", "Serve this machine's microVMs over HTTP."),
    "doctor": ("mayfly.cli.doctor", "Look at what this machine offers and what is missing."),
    "setup": ("mayfly.cli.setup", "Make everything that running programs needs."),
    "template": ("mayfly.cli.template", "List, make and remove what microVMs are cloned from."),
    "image": ("mayfly.cli.image", "List and build what microVMs start from."),
    "host": ("mayfly.cli.host", "Start, stop and look at the emulated host."),
    "bench": ("mayfly.cli.bench", "Measure speed and density on this machine."),
    "completion": ("mayfly.cli.completion", "Print what makes a shell complete mayfly's commands."),
}
"""Command name → (module, help). The module holds a click command of the command's name."""


class _LazyGroup(click.Group):
    """A group that loads a command's module when the command is used, and lists them without loading any."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in COMMANDS:
            return None
        command = getattr(import_module(COMMANDS[cmd_name][0]), cmd_name)
        return command if isinstance(command, click.Command) else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            from mayfly.validation import suggestion

            hint = suggestion(args[0], list(COMMANDS)) or (
                f"to run a file, say: mayfly run {args[0]}" if os.path.lexists(args[0]) else "see mayfly --help"
            )
            raise click.UsageError(f"there is no command {args[0]!r}; {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.command(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(mayfly.__version__, "-V", "--version", message="mayfly %(version)s")
def cli() -> None:
    """Run code that a language model wrote, each program in a Firecracker microVM of its own."""


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and end the process with its exit code; never shows a stack trace for what is expected."""
    _open_missing_streams()
    ours = set(threading.enumerate())
    code = _run(args)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            code = code or 1
    if set(threading.enumerate()) - ours:
        # A thread that waits in a read or write of a terminal or pipe would keep the process from ending.
        os._exit(code)
    sys.exit(code)


def _open_missing_streams() -> None:
    """Give closed standard streams to /dev/null: a socket that came to be descriptor 0 to 2 would be taken for one."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - to the end
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - to the end


def _run(args: Sequence[str] | None) -> int:
    try:
        outcome: Any = cli.main(args=args, prog_name="mayfly", standalone_mode=False)
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except Exception as error:
        code = exit_code_of(error)
        if code is None:
            raise
        show_failure(error)
        return code
    return outcome if isinstance(outcome, int) else 0
