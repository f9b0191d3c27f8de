"""`mayfly bench`: measure the promises that have figures."""

from __future__ import annotations

import os

import click

from mayfly.cli.failure import safe

__all__ = ["bench"]


@click.command(short_help="Measure speed and density on this machine.")
@click.option("--only", "ids", multiple=True, metavar="ID", help="Measure this metric; may be repeated.")
@click.option("--quick", is_flag=True, help="A few samples each: for a look, not for a judgement.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def bench(ids: tuple[str, ...], *, quick: bool, as_json: bool) -> int:
    """Measure speed and density on this machine, and compare them with their targets.

    Restoring, counting and destroying machines needs root and a /dev/kvm that takes machines; what programs see is
    measured where guests run, in the emulated host if need be. Nothing else should run meanwhile.
    """
    import anyio

    from mayfly.bench.metrics import chosen
    from mayfly.bench.report import table
    from mayfly.bench.run import run_benchmark
    from mayfly.cli.report import Progress
    from mayfly.host.paths import state_paths

    metrics = chosen(ids)
    progress = Progress()
    try:
        report = anyio.run(lambda: run_benchmark(state_paths(os.environ), metrics, quick=quick, say=progress.say))
    finally:
        progress.close()
    if as_json:
        import msgspec

        click.echo(msgspec.json.encode(report))
    else:
        click.echo(safe(table(report)))
    return 0
