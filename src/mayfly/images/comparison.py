"""Debian's cloud kernel as a guest's kernel, to compare our own with; no machine runs programs with it.

It is the kernel of the emulated host, Debian's `linux-image-cloud-amd64`, and comes with that image.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from mayfly.errors import MayflyError, SetupError
from mayfly.images import emulated

if TYPE_CHECKING:
    from pathlib import Path

    from mayfly.images.store import Entry, Store

__all__ = ["KIND", "build_comparison_kernel"]

KIND = "cloud-kernel"

_FILES = {"vmlinuz": "vmlinux", "guest-initrd": "initrd"}


def build_comparison_kernel(store: Store) -> Entry:
    """The entry with `vmlinux` and `initrd`, hard links to those of the emulated host's image; unless it is there.

    Without such an image it is the one in use, as inside an emulated host that was given it. SetupError where there is
    neither, or the image was made before it had a guest's start disk.
    """
    try:
        host = store.current(emulated.KIND)
        sources = {target: host.file(name) for name, target in _FILES.items()}
    except MayflyError as error:
        with suppress(MayflyError):
            return store.current(KIND)
        raise SetupError(
            f"Debian's kernel, to compare with, comes with the emulated host's image: {error}",
            field="kernel",
            hint="run `mayfly setup --emulated`",
        ) from error

    def build(directory: Path) -> dict[str, str]:
        for target, source in sources.items():
            (directory / target).hardlink_to(source)
        return {"kernel": host.meta.get("kernel", "")}

    return store.build(KIND, host.key, build)
