"""`mayfly ps`: what a running node does and keeps ready."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mayfly.client.core import NodeClient
    from mayfly.sandbox_model import SandboxInfo

__all__ = ["ps"]


@click.command(short_help="Say what a node runs and keeps ready.")
@click.option("--node", metavar="ADDRESS", help="The node to ask: unix:PATH or http://HOST:PORT.")
@click.option("-a", "--all", "every", is_flag=True, help="List sandboxes that have ended too.")
@click.option("--json", "as_json", is_flag=True, help="Print it as one JSON object.")
def ps(node: str | None, *, every: bool, as_json: bool) -> int:
    """Say how much runs, how many microVMs of which size wait ready, and which sandboxes there are.

    No node is started for it.
    """
    import anyio
    import msgspec

    from mayfly.client.discovery import running_node
    from mayfly.client.sandbox import AsyncSandbox
    from mayfly.config import load_config
    from mayfly.host.paths import state_paths

    paths = state_paths(os.environ)
    config = load_config(os.environ, paths=paths, flags={"node": node})

    async def ask() -> dict[str, Any]:
        client: NodeClient = await running_node(config, paths)
        sandboxes = await AsyncSandbox.list(state=None if every else "running", node=client.address)
        return {"host": await client.host(), "pool": await client.pool(), "sandboxes": sandboxes}

    found = anyio.run(ask)
    if as_json:
        click.echo(msgspec.json.encode(found))
    else:
        click.echo("\n".join([_text(found["host"], found["pool"]), *_sandboxes(found["sandboxes"])]))
    return 0


def _sandboxes(infos: Sequence[SandboxInfo]) -> list[str]:
    """A line for each: id, state, image, how old, how long it has, what it is for."""
    from datetime import UTC, datetime

    from mayfly.cli.failure import safe
    from mayfly.cli.sandboxes import duration

    def since(text: str) -> float:
        try:
            return (datetime.now(UTC) - datetime.fromisoformat(text)).total_seconds()
        except (ValueError, TypeError):
            return 0.0

    lines = []
    for info in infos:
        times = f"since {duration(since(info.created_at))}"
        times += f", {duration(-since(info.expires_at))} left" if info.state == "running" else f": {info.reason}"
        notes = " ".join(f"{name}={value}" for name, value in info.metadata.items())
        shown = f"{info.id}  {info.state:7}  {info.image}, {info.limits.mem_mib} MiB, {times}  {notes}"
        lines.append(safe(shown).replace("\n", "\\n").rstrip())
    return lines


def _text(host: dict[str, Any], pool: dict[str, Any]) -> str:
    queued = pool.get("budget", {}).get("queued", 0)
    waiting = f", {queued} waiting for room" if queued else ""
    lines = [f"{host['kind']} host, Firecracker {host['firecracker']}: {host['running']} running{waiting}"]
    for size in pool["sizes"]:
        made = "" if size["template"] else "; its template is not made yet"
        image = size.get("image", "python")
        disk = f", {size['scratch_mib']} MiB disk" if size.get("scratch_mib") else ""
        moving = "".join(f", {size[state]} {state}" for state in ("spawning", "running", "dying") if size.get(state))
        lines.append(
            f"{image:>8} {size['mem_mib']:>6} MiB, {size['vcpus']} CPU{disk}: "
            f"{size['primed']} primed of {size['target_primed']}, "
            f"{size['loaded']} loaded of {size['target_loaded']}{moving}{made}"
        )
    lines += [f"warning: {warning}" for warning in pool.get("warnings", [])]
    return "\n".join(lines)
