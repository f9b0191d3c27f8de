"""`mayfly logs`: what was done in a sandbox, and what its code printed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mayfly.cli.sandboxes import node_option, waited

if TYPE_CHECKING:
    from mayfly.sandbox_model import LogEntry

__all__ = ["logs"]

_LOOK_S = 0.5


@click.command(short_help="Say what was done in a sandbox.")
@click.argument("sandbox_id", metavar="ID")
@click.option("-f", "--follow", is_flag=True, help="Go on until the sandbox has ended.")
@click.option("--json", "as_json", is_flag=True, help="Print each entry as one JSON object.")
@node_option
def logs(sandbox_id: str, node: str | None, *, follow: bool, as_json: bool) -> int:
    """Print what was done in the sandbox ID and what its code and commands printed; the newest 256 KiB are kept.

    Works for sandboxes that have ended too, as long as the node knows them.
    """
    return waited(_logs(sandbox_id, node, follow=follow, as_json=as_json))


async def _logs(sandbox_id: str, node: str | None, *, follow: bool, as_json: bool) -> int:
    import anyio
    import msgspec

    from mayfly.client.sandbox import AsyncSandbox, running_client
    from mayfly.errors import NotFoundError, SandboxEndedError

    sandbox = AsyncSandbox.attach(sandbox_id, await running_client(node))
    start = 0
    while True:
        try:
            state = (await sandbox.info()).state
            entries = await sandbox.logs(start=start)
        except SandboxEndedError:
            return 0
        except NotFoundError:
            raise click.UsageError(f"there is no sandbox {sandbox_id!r}; mayfly ps lists them") from None
        for entry in entries:
            click.echo(msgspec.json.encode(entry) if as_json else _line(entry), nl=as_json)
            start = entry.offset + 1
        if not follow or state != "running":
            return 0
        await anyio.sleep(_LOOK_S)


def _line(entry: LogEntry) -> str:
    from mayfly.cli.failure import safe

    where = " ".join(part for part in (entry.id, entry.stream) if part)
    text = safe(entry.text.rstrip("\n")).replace("\n", "\n    ")
    return f"{safe(entry.at)} {entry.source}{f' {safe(where)}' if where else ''}: {text}\n"
