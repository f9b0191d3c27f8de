"""`mayfly completion`: the lines that make a shell complete mayfly's commands and options."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from click.shell_completion import CompletionItem

    Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]

__all__ = ["completion", "files", "words"]


def words(*offered: str) -> Completer:
    """For `shell_complete`: offers these where the value may be another one too."""

    def complete(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        del ctx, parameter
        return [CompletionItem(word) for word in offered if word.startswith(incomplete)]

    return complete


def files(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """For `shell_complete`: the shell's own completion of files."""
    from click.shell_completion import CompletionItem

    del ctx, parameter
    return [CompletionItem(incomplete, type="file")]


@click.command(short_help="Print what makes a shell complete mayfly's commands.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> int:
    """Print the completion script for SHELL. For bash: eval "$(mayfly completion bash)" in ~/.bashrc."""
    from click.shell_completion import ShellComplete, get_completion_class

    from mayfly.cli import cli

    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"no completion for {shell}")
    # The base class's `source`: bash's own starts a bash only to warn about versions before 4.4.
    click.echo(ShellComplete.source(kind(cli, {}, "mayfly", "_MAYFLY_COMPLETE")))
    return 0
