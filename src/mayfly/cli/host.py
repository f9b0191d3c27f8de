"""`mayfly host`: the emulated host, by hand."""

from __future__ import annotations

import os

import click

from mayfly.cli.failure import safe

__all__ = ["host"]


@click.group(short_help="Start, stop and look at the emulated host.")
def host() -> None:
    """Start, stop and look at the emulated host, in which programs run where this machine has no usable KVM.

    It starts by itself when it is needed and stops by itself when it is idle.
    """


@host.command()
@click.option("--json", "as_json", is_flag=True, help="Print its status as one JSON object.")
def up(*, as_json: bool) -> int:
    """Start it, or leave it running; one that runs other code is replaced."""
    from mayfly.cli.report import Progress
    from mayfly.config import load_config, node_settings
    from mayfly.host.emulated import up as bring_up
    from mayfly.host.paths import state_paths

    paths = state_paths(os.environ)
    config = load_config(os.environ, paths=paths)
    progress = Progress()
    try:
        now = bring_up(
            paths,
            progress.say,
            mem_mib=config.emulated_mem_mib,
            idle_exit_s=config.idle_exit_s,
            node=node_settings(config),
        )
    finally:
        progress.close()
    return _show(now, as_json=as_json)


@host.command()
def down() -> int:
    """Stop it. Programs that run in it are ended."""
    from mayfly.host.emulated import down as take_down
    from mayfly.host.paths import state_paths

    stopped = take_down(state_paths(os.environ))
    click.echo("stopped" if stopped else "was not running")
    return 0


@host.command()
@click.option("--json", "as_json", is_flag=True, help="Print it as one JSON object.")
def status(*, as_json: bool) -> int:
    """Say whether it runs, since when, and what it takes. Exit code 1 when it does not run."""
    from mayfly.host.emulated import status as look
    from mayfly.host.paths import state_paths

    now = look(state_paths(os.environ))
    _show(now, as_json=as_json)
    return 0 if now.up else 1


def _show(status: object, *, as_json: bool) -> int:
    import msgspec

    if as_json:
        click.echo(msgspec.json.encode(status))
        return 0
    fields = msgspec.to_builtins(status)
    disk = f"disks take {fields['disk_bytes'] / 1e6:.0f} MB"
    if not fields["up"]:
        click.echo(f"down; {disk}")
        return 0
    stale = "" if fields["current"] else "; it runs other code and is replaced at the next run"
    uptime = f"{fields['uptime_s'] or 0:.0f} s"
    click.echo(safe(f"up for {uptime}, process {fields['pid']}, {fields['mem_mib']} MiB, {disk}{stale}"))
    return 0
