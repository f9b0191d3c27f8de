"""`mayfly kill`: ends sandboxes."""

from __future__ import annotations

import click

from mayfly.cli.sandboxes import node_option, waited

__all__ = ["kill"]


@click.command(short_help="End sandboxes.")
@click.argument("ids", nargs=-1, metavar="[ID…]")
@click.option("--all", "every", is_flag=True, help="End all that run.")
@node_option
def kill(ids: tuple[str, ...], node: str | None, *, every: bool) -> int:
    """End the sandboxes ID and all that is in them, and print the ids of those that were running.

    Exit code 1 when one of them was not.
    """
    if bool(ids) == every:
        raise click.UsageError("say which sandboxes to end: ID, or --all")
    return waited(_kill(ids, node))


async def _kill(ids: tuple[str, ...], node: str | None) -> int:
    from mayfly.client.sandbox import AsyncSandbox, running_client

    found = [info.id for info in await AsyncSandbox.list(node=node)] if not ids else list(ids)
    client = await running_client(node)
    missed = False
    for sandbox_id in found:
        if await AsyncSandbox.attach(sandbox_id, client).kill():
            click.echo(sandbox_id)
        else:
            missed = bool(ids)
            if ids:
                click.echo(f"mayfly: {sandbox_id} is not running", err=True)
    return 1 if missed else 0
