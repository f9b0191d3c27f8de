"""`mayfly doctor`: what this machine offers, what stands in the way, and what to do about it."""

from __future__ import annotations

import os

import click

from mayfly.cli.failure import paint, safe

__all__ = ["doctor"]

_MARKS = {"ok": ("ok  ", "green"), "warn": ("warn", "yellow"), "fail": ("fail", "red")}


@click.command(short_help="Look at what this machine offers and what is missing.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as one JSON array.")
def doctor(*, as_json: bool) -> int:
    """Look at this machine and change nothing. Exit code 1 when something keeps programs from running."""
    from mayfly.host.paths import state_paths
    from mayfly.node.doctor import examine

    checks = examine(state_paths(os.environ))
    if as_json:
        import msgspec

        click.echo(msgspec.json.encode(checks))
    else:
        width = max(len(check.name) for check in checks)
        for check in checks:
            mark, colour = _MARKS[check.status]
            click.echo(f"{paint(mark, fg=colour, err=False)}  {check.name:<{width}}  {safe(check.detail)}")
            if check.hint:
                click.echo(f"{'':<6}{'':<{width}}  → {safe(check.hint)}")
    return 1 if any(check.status == "fail" for check in checks) else 0
