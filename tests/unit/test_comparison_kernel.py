"""The kernel that a guest's boot is compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mayfly.errors import SetupError
from mayfly.host.paths import StatePaths
from mayfly.images.comparison import KIND, build_comparison_kernel
from mayfly.images.store import Store

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(StatePaths(tmp_path).make())


def make_host(store: Store, key: str, *names: str) -> None:
    def build(directory: Path) -> dict[str, str]:
        for name in names:
            (directory / name).write_text(f"{key} {name}")
        return {"kernel": "6.12-cloud"}

    store.build("emulated-host", key, build)


def test_it_is_the_emulated_hosts_kernel_with_a_guests_start_disk(store: Store) -> None:
    make_host(store, "one", "vmlinuz", "initrd", "guest-initrd")
    entry = build_comparison_kernel(store)
    assert entry.file("vmlinux").read_text() == "one vmlinuz"
    assert entry.file("initrd").read_text() == "one guest-initrd"
    assert entry.meta["kernel"] == "6.12-cloud"
    assert entry.file("vmlinux").samefile(store.current("emulated-host").file("vmlinuz"))
    make_host(store, "two", "vmlinuz", "initrd", "guest-initrd")
    assert build_comparison_kernel(store).file("vmlinux").read_text() == "two vmlinuz"


@pytest.mark.parametrize("files", [(), ("vmlinuz", "initrd")])
def test_without_one_it_is_said_where_it_comes_from(store: Store, files: tuple[str, ...]) -> None:
    if files:
        make_host(store, "old", *files)
    with pytest.raises(SetupError, match="comes with the emulated host's image") as caught:
        build_comparison_kernel(store)
    assert "mayfly setup --emulated" in str(caught.value.hint)


def test_one_that_was_brought_along_needs_no_emulated_host(store: Store) -> None:
    def bring(directory: Path) -> dict[str, str]:
        (directory / "vmlinux").write_text("a kernel")
        return {}

    made = store.build(KIND, "brought", bring)
    assert build_comparison_kernel(store) == made
