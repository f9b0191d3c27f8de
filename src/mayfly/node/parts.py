"""What a node is made of, read from the state directory: artefacts and the jailer's options."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog

from mayfly.errors import SetupError
from mayfly.host.cgroups import detect_cgroups
from mayfly.images.agent_drive import build_agent_drive
from mayfly.images.scratch import scratch_disk
from mayfly.scan.manifest import Manifest, parse_manifest
from mayfly.vmm.jail import JailerOptions
from mayfly.vmm.machine import BootSource
from mayfly.vmm.versions import FirecrackerVersion, parse_version, snapshot_format

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mayfly.host.paths import StatePaths
    from mayfly.images.store import Entry, Store
    from mayfly.model import HostKind

__all__ = ["DEFAULT_IMAGE", "Artefacts", "boot_sources", "jailer_options", "node_artefacts"]

_log = structlog.get_logger("mayfly.node")

DEFAULT_IMAGE = "python"
"""The image that every node has."""
_IMAGE_KIND = "image-"

_MANIFEST_MAX_BYTES = 8 * 1024 * 1024
_SHOWN_KEY = 12
_EMULATED_ARGUMENTS = "noxsave"
"""Under emulated SVM the size of the extended processor state comes out wrong: without this, every guest warns about
it at length, or fails to return from signals."""


@dataclass(frozen=True, slots=True)
class Artefacts:
    """The store's entries that machines are made from. `images` has `python` and whatever else was built, by name."""

    firecracker: Entry
    kernel: Entry
    images: Mapping[str, Entry]
    agent: Entry

    def boot_source(self, kind: HostKind = "kvm", image: str = DEFAULT_IMAGE, *, console: bool = False) -> BootSource:
        """What is linked into every jail, and what the kernel is told on this kind of host."""
        entry = self.image(image)
        return BootSource(
            kernel=self.kernel.file("vmlinux"),
            rootfs=entry.file("rootfs.squashfs"),
            agent=self.agent.file("agent.squashfs"),
            extra_arguments=_EMULATED_ARGUMENTS if kind == "emulated" else "",
            console=console,
            name=f"{image}@{entry.key[:_SHOWN_KEY]}",
        )

    def image(self, name: str = DEFAULT_IMAGE) -> Entry:
        """An image by its name. SetupError when it is not there."""
        entry = self.images.get(name)
        if entry is None:
            raise SetupError(f"image {name} is not here", field="image", hint=f"run `mayfly image build {name}`")
        return entry

    def version(self) -> FirecrackerVersion:
        """Firecracker's version as it said itself at installation."""
        return parse_version(self.firecracker.meta.get("version", ""))

    def manifest(self, image: str = DEFAULT_IMAGE) -> Manifest:
        """What an image holds."""
        with self.image(image).file("manifest.json").open("rb") as file:
            return parse_manifest(file.read(_MANIFEST_MAX_BYTES))

    def keys(self, image: str = DEFAULT_IMAGE) -> tuple[str, ...]:
        """What a snapshot of these depends on: also what the waiting interpreter has imported, and the format."""
        return (
            self.firecracker.key,
            f"format {snapshot_format(self.version())}",
            self.kernel.key,
            self.image(image).key,
            self.agent.key,
            f"preload {' '.join(self.manifest(image).preload)}",
        )

    def names(self) -> tuple[str, str]:
        """Kernel and image as results name them."""
        return self.kernel.key[:_SHOWN_KEY], f"{DEFAULT_IMAGE}@{self.image().key[:_SHOWN_KEY]}"


def node_artefacts(store: Store, *, verify: bool) -> Artefacts:
    """Take what a node needs from the store, compared with its hashes when `verify`; build the agent's drive.

    SetupError when something is missing, CorruptError when it is damaged. Of the images only `python` must be there;
    another that is damaged is left out, which the log says.
    """
    take = store.verified if verify else store.current
    images = {DEFAULT_IMAGE: take(f"{_IMAGE_KIND}{DEFAULT_IMAGE}")}
    for kind in sorted({entry.kind for entry in store.list() if entry.kind.startswith(_IMAGE_KIND)}):
        name = kind.removeprefix(_IMAGE_KIND)
        if name not in images:
            try:
                images[name] = take(kind)
            except SetupError as error:
                _log.warning("an image is left out", image=name, error=str(error))
    agent = build_agent_drive(store, images[DEFAULT_IMAGE])
    if uncompiled := agent.meta.get("uncompiled"):
        _log.warning("guests compile their agent at each boot", error=uncompiled)
    return Artefacts(take("firecracker"), take("kernel"), images, agent)


def boot_sources(
    artefacts: Artefacts, store: Store, kind: HostKind, *, console: bool = False
) -> Callable[[str, int], BootSource]:
    """For `FirecrackerLauncher`: what a machine of an image, with a scratch disk of so many MiB, starts from."""

    def source(image: str, scratch_mib: int) -> BootSource:
        found = artefacts.boot_source(kind, image, console=console)
        return replace(found, scratch=scratch_disk(store, scratch_mib)) if scratch_mib else found

    return source


def jailer_options(paths: StatePaths, artefacts: Artefacts) -> JailerOptions:
    """One parent control group for each state directory, so that nodes do not take each other's for leftovers."""
    name = hashlib.sha256(os.fsencode(paths.root)).hexdigest()[:8]
    return JailerOptions(
        jailer=artefacts.firecracker.file("jailer"),
        firecracker=artefacts.firecracker.file("firecracker"),
        jails=paths.jails,
        cgroups=detect_cgroups(),
        parent_cgroup=f"mayfly-{name}",
    )
