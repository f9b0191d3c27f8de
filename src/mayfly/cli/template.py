"""`mayfly template`: the snapshots that microVMs are cloned from."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import click

from mayfly.cli.failure import safe

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mayfly.client.core import NodeClient

__all__ = ["template"]

_NODE = click.option("--node", metavar="ADDRESS", help="The node to ask: unix:PATH or http://HOST:PORT.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(short_help="List, make and remove what microVMs are cloned from.")
def template() -> None:
    """List, make and remove templates: machines of one image and size, booted once and kept as snapshots.

    A node makes them by itself when a size is first used; these commands are for those who cannot wait, or who want
    the space back. They ask a node that runs, and start none.
    """


@template.command("ls")
@_NODE
@_JSON
def list_templates(node: str | None, *, as_json: bool) -> int:
    """List the node's templates, those used last first."""
    rows = _ask(node, lambda client: client.templates())
    if as_json:
        return _print_json(rows)
    if not rows:
        click.echo("none; they are made when a size is first used")
    for row in rows:
        click.echo(_line(row))
    return 0


@template.command()
@click.option("--image", default="python", show_default=True, help="The image it starts from.")
@click.option("--mem", "mem_mib", type=int, default=256, show_default=True, metavar="MIB", help="Memory.")
@click.option("--vcpus", type=int, default=1, show_default=True, metavar="N", help="Processors.")
@click.option("--scratch", "scratch_mib", type=int, default=0, show_default=True, metavar="MIB", help="Scratch disk.")
@_NODE
@_JSON
def build(image: str, mem_mib: int, vcpus: int, scratch_mib: int, node: str | None, *, as_json: bool) -> int:
    """Make the template of an image and size, unless it is there."""
    wanted = {"image": image, "mem_mib": mem_mib, "vcpus": vcpus, "scratch_mib": scratch_mib}
    row = _ask(node, lambda client: client.build_template(wanted))
    if as_json:
        return _print_json(row)
    click.echo(_line(row))
    return 0


@template.command()
@click.argument("key", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Remove every template.")
@_NODE
@_JSON
def rm(key: tuple[str, ...], node: str | None, *, everything: bool, as_json: bool) -> int:
    """Remove the templates whose keys begin with KEY, or all. Clones of them that wait are destroyed first.

    Clones that run keep what they have. A template that is needed again is made again.
    """
    if everything == bool(key):
        raise click.UsageError("name the templates by the beginning of their keys, or say --all")

    async def remove(client: NodeClient) -> list[dict[str, Any]]:
        keys = [row["key"] for row in await client.templates()] if everything else list(key)
        return [await client.remove_template(each) for each in keys]

    rows = _ask(node, remove)
    if as_json:
        return _print_json(rows)
    for row in rows:
        waiting = f", with {row['waiting']} waiting clones" if row["waiting"] else ""
        click.echo(safe(f"removed {row['key'][:12]}{waiting}"))
    return 0


def _ask(node: str | None, question: Callable[[NodeClient], Awaitable[Any]]) -> Any:
    import anyio

    from mayfly.client.discovery import running_node
    from mayfly.config import load_config
    from mayfly.host.paths import state_paths

    paths = state_paths(os.environ)
    config = load_config(os.environ, paths=paths, flags={"node": node})

    async def ask() -> Any:
        return await question(await running_node(config, paths))

    return anyio.run(ask)


def _print_json(value: Any) -> int:
    import msgspec

    click.echo(msgspec.json.encode(value))
    return 0


def _line(row: dict[str, Any]) -> str:
    disk = f", {row['scratch_mib']} MiB disk" if row["scratch_mib"] else ""
    size = f"{row['mem_mib']:>5} MiB, {row['vcpus']} CPU{disk}"
    used, made = _ago(time.time() - row["last_used"]), _ago(time.time() - _seconds(row["created"]))
    other = "" if row["current"] else "; of other parts than the node has now"
    waiting = f", {row['waiting']} waiting" if row["waiting"] else ""
    taken = f"{row['disk_bytes'] / 1e6:>7.1f} MB"
    return safe(f"{row['key'][:12]}  {row['image']:<8} {size:<18} {taken}, made {made}, used {used}{waiting}{other}")


def _seconds(created: str) -> float:
    """Seconds since 1970 of the time that a node wrote; now, where it wrote something else."""
    from datetime import datetime

    try:
        return datetime.fromisoformat(created).timestamp()
    except ValueError:
        return time.time()


def _ago(seconds: float) -> str:
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{max(0, seconds):.0f} s ago"
