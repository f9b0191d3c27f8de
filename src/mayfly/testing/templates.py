"""Templates that are small files, for tests of what names, lists and removes them: no machine is booted."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio.lowlevel

from mayfly.errors import InvalidRequestError
from mayfly.host.paths import StatePaths
from mayfly.images.store import Store
from mayfly.node.admission import Admission
from mayfly.node.templates import NodeTemplates
from mayfly.pool.templates import Templates
from mayfly.vmm.machine import BootSource, SnapshotFiles

if TYPE_CHECKING:
    from mayfly.pool.size import Size

__all__ = ["NoPool", "SmallTemplates", "small_templates"]


class _Launcher:
    source = BootSource(Path("k"), Path("r"), Path("a"))


class SmallTemplates(Templates):
    """Templates that are two or three small files."""

    def __init__(self, store: Store, **rest: Any) -> None:
        self._parts = "parts"
        launcher: Any = _Launcher()
        super().__init__(launcher, store, identity=lambda image: (self._parts, image), **rest)

    def change_parts(self, parts: str) -> None:
        """As after a new start of the node with other kernel, images, agent or Firecracker."""
        self._parts = parts
        self._known.clear()

    async def _take_snapshot(self, size: Size, directory: Path) -> SnapshotFiles:
        for name in ("vmstate", "memory", *(("scratch",) if size.scratch_mib else ())):
            (directory / name).write_bytes(os.urandom(5000))
        await anyio.lowlevel.checkpoint()
        return SnapshotFiles(directory / "vmstate", directory / "memory")

    async def _find_working_set(self, size: Size, snapshot: SnapshotFiles) -> None:
        """Nothing lives here."""


class NoPool:
    """A pool that says that two clones of every template wait, and remembers which were given up."""

    def __init__(self) -> None:
        self.given_up: list[str] = []

    def state(self) -> dict[str, Any]:
        """As `mayfly.pool.pool.Pool.state`."""
        return {"sizes": []}

    def waiting(self, key: str) -> int:
        """As `mayfly.pool.pool.Pool.waiting`."""
        del key
        return 2

    async def give_up(self, key: str) -> int:
        """As `mayfly.pool.pool.Pool.give_up`."""
        self.given_up.append(key)
        return 2


def small_templates(
    directory: Path, *, pool: NoPool | None = None, images: tuple[str, ...] = ("python",)
) -> tuple[NodeTemplates, SmallTemplates]:
    """A node's templates over a store in `directory`, and what makes them."""

    def check_image(image: str) -> None:
        if image not in images:
            raise InvalidRequestError(f"image must be one of {', '.join(images)}", field="image")

    templates = SmallTemplates(Store(StatePaths(directory).make()))
    admission = Admission(mem_mib=8192, vcpus=2, machines=2)
    given: Any = pool or NoPool()
    return NodeTemplates(templates, given, admission, check_image=check_image), templates
