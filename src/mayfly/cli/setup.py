"""`mayfly setup`: everything that running programs needs, made once."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from mayfly.host.paths import StatePaths
    from mayfly.images.progress import Reporter

__all__ = ["setup"]


@click.command(short_help="Make everything that running programs needs.")
@click.option(
    "--kernel",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Use this guest kernel (an uncompressed vmlinux) instead of building one.",
)
@click.option(
    "--emulated/--no-emulated",
    default=None,
    help="Make the emulated host's image too; by default where KVM turns out not to work.",
)
@click.option("--image", "images", multiple=True, metavar="NAME", help="Build this guest image too: node.")
@click.option("--verify", is_flag=True, help="Compare everything that is there with its hashes.")
def setup(kernel: Path | None, *, emulated: bool | None, images: tuple[str, ...], verify: bool) -> int:
    """Install Firecracker, build the guest's kernel and image, and the emulated host's image where it is needed.

    What is there already is kept; an interrupted set-up continues where it stopped.
    """
    try:
        _set_up(kernel, images, emulated=emulated, verify=verify)
    except KeyboardInterrupt:
        click.echo("mayfly: interrupted; the same command goes on from here", err=True)
        raise
    return 0


def _set_up(kernel: Path | None, images: tuple[str, ...], *, emulated: bool | None, verify: bool) -> None:
    from mayfly.cli.progress import open_reporter
    from mayfly.host.paths import state_paths
    from mayfly.images.setup import run_setup

    paths = state_paths(os.environ).make()
    with open_reporter(sys.stderr) as reporter:
        made_with: bool | None = None
        if emulated is None and not _has_guest(paths):
            # KVM can be judged only once there is a guest to boot.
            made_with = _needs_emulated_host(paths, reporter, booting=False)
            run_setup(paths, reporter, kernel=kernel, emulated=made_with, verify=verify, images=images)
        if emulated is None:
            emulated = _needs_emulated_host(paths, reporter, booting=True)
        if made_with is None or (emulated and not made_with):
            run_setup(paths, reporter, kernel=kernel, emulated=emulated, verify=verify, images=images)


def _has_guest(paths: StatePaths) -> bool:
    from mayfly.errors import SetupError
    from mayfly.images.store import Store

    store = Store(paths)
    try:
        return all(store.current(kind) for kind in ("firecracker", "kernel", "image-python"))
    except SetupError:
        return False


def _needs_emulated_host(paths: StatePaths, reporter: Reporter, *, booting: bool) -> bool:
    """Whether KVM does not work for this user; without `booting`, as far as a look at the device tells."""
    from mayfly.node.bringup import kvm_answer
    from mayfly.vmm.probe import device_problem

    if not booting:
        return device_problem() is not None or os.geteuid() != 0
    with reporter.step("KVM") as step:
        answer = kvm_answer(paths)
        step.detail(answer.reason)
    if not answer.usable:
        reporter.note(f"programs will run in the emulated host: {answer.reason}")
    return not answer.usable
