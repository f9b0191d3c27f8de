"""`mayfly cp`: files into a sandbox and out of it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from mayfly.cli import completion
from mayfly.cli.sandboxes import node_option, opened, waited

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["cp"]

_REMOTE = re.compile(r"(?P<id>sb-[A-Za-z0-9_-]{1,61}):(?P<path>.*)", re.DOTALL)


@click.command(short_help="Copy files into a sandbox and out of it.")
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE…", shell_complete=completion.files)
@click.argument("target", metavar="TARGET", shell_complete=completion.files)
@click.option("-v", "--verbose", is_flag=True, help="Say which files are written.")
@node_option
def cp(sources: tuple[str, ...], target: str, node: str | None, *, verbose: bool) -> int:
    """Copy files, directories or globs (in quotes) between here and a sandbox; a place in a sandbox is ID:PATH.

    Paths in a sandbox are absolute, or below /home/user. A directory is copied with all below it; into TARGET where
    that is a directory, else as TARGET.
    """
    into = _REMOTE.fullmatch(target)
    places = [_REMOTE.fullmatch(source) for source in sources]
    found = [place for place in places if place]
    if into and not found:
        return waited(_up(into["id"], sources, into["path"] or ".", node, verbose=verbose))
    if not into and len(found) == len(sources) and len({place["id"] for place in found}) == 1:
        paths = [place["path"] or "." for place in found]
        return waited(_down(found[0]["id"], paths, target, node, verbose=verbose))
    raise click.UsageError("one side must be here, the other in one sandbox, as ID:PATH")


async def _up(sandbox_id: str, sources: Sequence[str], path: str, node: str | None, *, verbose: bool) -> int:
    async with opened(sandbox_id, node) as sandbox:
        target = f"{path.rstrip('/')}/" if len(sources) > 1 else path
        for source in sources:
            await sandbox.files.upload(source, target, on_file=_said if verbose else None)
    return 0


async def _down(sandbox_id: str, paths: Sequence[str], target: str, node: str | None, *, verbose: bool) -> int:
    from pathlib import Path

    async with opened(sandbox_id, node) as sandbox:
        if len(paths) > 1:
            Path(target).mkdir(parents=True, exist_ok=True)
        for path in paths:
            try:
                await sandbox.files.download(path, target, on_file=_said if verbose else None)
            except OSError as error:
                raise click.UsageError(f"cannot write {error.filename or target}: {error.strerror}") from None
    return 0


def _said(path: str) -> None:
    from mayfly.cli.failure import safe

    click.echo(safe(path))
