"""`mayfly image`: what microVMs start from."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from mayfly.cli.failure import safe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mayfly.images.store import Entry

__all__ = ["image"]


@click.group(short_help="List, build and describe what microVMs start from.")
def image() -> None:
    """List, build and describe what microVMs start from: kernels, root file systems, Firecracker."""


@image.command("ls")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
def list_entries(*, as_json: bool) -> int:
    """List what is in the store: kind, key, size, when it was made, and facts."""
    from mayfly.host.paths import state_paths
    from mayfly.images.store import Store

    entries = sorted(Store(state_paths(os.environ)).list(), key=lambda entry: (entry.kind, entry.key))
    if as_json:
        import msgspec

        click.echo(msgspec.json.encode([_plain(entry) for entry in entries]))
        return 0
    if not entries:
        click.echo("nothing yet; run `mayfly setup`")
    for entry in entries:
        facts = ", ".join(f"{name} {value}" for name, value in sorted(entry.meta.items()))
        made = entry.record.created[:16].replace("T", " ")
        click.echo(safe(f"{entry.kind:<16}  {entry.key[:12]:<12}  {entry.size / 1e6:>8.1f} MB  {made:<16}  {facts}"))
    return 0


@image.command()
@click.argument("name")
def build(name: str) -> int:
    """Build the image NAME (python or node), unless it is there already.

    An emulated host that runs has it after its next start.
    """
    from mayfly.cli.progress import open_reporter
    from mayfly.host.paths import state_paths
    from mayfly.images.guest import build_guest_image, image_kind
    from mayfly.images.packages import install_packages, missing_needs
    from mayfly.images.store import Store

    image_kind(name)
    store = Store(state_paths(os.environ).make())
    with open_reporter(sys.stderr) as reporter:
        if needs := missing_needs({"images"}):
            with reporter.step("System packages") as step:
                install_packages(needs, step=step)
        with reporter.step(f"Guest image {name}") as step:
            entry = build_guest_image(store, name, step=step)
    click.echo(f"{entry.kind} {entry.key[:12]} {entry.size / 1e6:.1f} MB")
    return 0


@image.command()
@click.argument("name")
@click.option("--licences", is_flag=True, help="List every package with its version and licences.")
@click.option("--json", "as_json", is_flag=True, help="Print the image's manifest.")
def show(name: str, *, licences: bool, as_json: bool) -> int:
    """Say what the image NAME holds: its Python, its packages, what programs can import.

    The licences are the short names in the copyright files of Debian's packages; the files themselves are in the
    image, in /usr/share/doc.
    """
    from mayfly.host.paths import state_paths
    from mayfly.images.guest import image_kind, read_manifest
    from mayfly.images.store import Store

    entry = Store(state_paths(os.environ)).current(image_kind(name))
    manifest = read_manifest(entry)
    if as_json:
        import msgspec

        click.echo(msgspec.json.encode(manifest))
    elif licences:
        for line in _licence_lines(manifest):
            click.echo(safe(line))
    else:
        for line in _description(entry, manifest):
            click.echo(safe(line))
    return 0


def _plain(entry: Entry) -> dict[str, object]:
    return {
        "kind": entry.kind,
        "key": entry.key,
        "bytes": entry.size,
        "created": entry.record.created,
        "meta": entry.meta,
        "path": str(entry.path),
    }


def _table(manifest: dict[str, Any], name: str) -> dict[str, Any]:
    found = manifest.get(name)
    return found if isinstance(found, dict) else {}


def _licence_lines(manifest: dict[str, Any]) -> Iterator[str]:
    names = _table(manifest, "licences")
    for package, version in sorted(_table(manifest, "packages").items()):
        found = names.get(package) or ["see its copyright file"]
        yield f"{package:<28}  {version:<28}  {', '.join(map(str, found))}"


def _description(entry: Entry, manifest: dict[str, Any]) -> Iterator[str]:
    rows = {
        "image": f"{entry.kind.removeprefix('image-')}, {entry.size / 1e6:.1f} MB, key {entry.key[:12]}",
        "made": entry.record.created,
        "python": manifest["python"],
        "packages": len(_table(manifest, "packages")),
    }
    for name, value in rows.items():
        yield f"{name:<13} {value}"
    for name, words in (("libraries", "distributions"), ("preloaded", "preload")):
        found = manifest.get(words) or {}
        shown = [f"{key} {value}" for key, value in sorted(found.items())] if isinstance(found, dict) else found
        yield f"{name:<13} {', '.join(map(str, shown)) or 'none'}"
