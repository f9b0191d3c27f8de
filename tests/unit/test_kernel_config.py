from __future__ import annotations

import re
import tarfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mayfly.errors import SetupError
from mayfly.host.paths import StatePaths
from mayfly.images import kernel
from mayfly.images.kernel import install_kernel, is_current_kernel, kernel_fragment, lines_not_taken
from mayfly.images.store import Store

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = """
CONFIG_64BIT=y
# CONFIG_USB is not set
CONFIG_NR_CPUS=8
CONFIG_NAME="x y"
"""


@pytest.mark.parametrize(
    "fragment",
    [
        "CONFIG_64BIT=y",
        "# CONFIG_USB is not set",
        "# CONFIG_ABSENT is not set",
        "CONFIG_USB=n",
        "CONFIG_NR_CPUS=8",
        'CONFIG_NAME="x y"',
        "# a comment\n\n",
    ],
)
def test_setting_that_the_result_has_is_taken(fragment: str) -> None:
    assert lines_not_taken(fragment, CONFIG) == []


@pytest.mark.parametrize(
    "fragment",
    ["CONFIG_64BIT=m", "CONFIG_ABSENT=y", "CONFIG_USB=y", "# CONFIG_64BIT is not set", "CONFIG_NR_CPUS=80"],
)
def test_setting_that_the_result_lacks_is_listed(fragment: str) -> None:
    assert lines_not_taken(fragment, CONFIG) == [fragment]


@given(st.text(), st.text())
def test_any_text_can_be_compared(fragment: str, config: str) -> None:
    assert isinstance(lines_not_taken(fragment, config), list)


def test_own_fragment_holds_nothing_but_settings_and_comments() -> None:
    names = []
    for line in kernel_fragment().splitlines():
        setting = re.fullmatch(r"(CONFIG_[A-Z0-9_]+)=\S.*|# (CONFIG_[A-Z0-9_]+) is not set", line)
        assert setting or not line or line.startswith("#"), line
        assert setting or "CONFIG_" not in line.split(" ")[0], line
        if setting:
            names.append(setting[1] or setting[2])
    assert len(names) > 50
    assert sorted(set(names)) == sorted(names), "an option is set twice"


@pytest.mark.parametrize(
    "line",
    ["CONFIG_MODULES", "CONFIG_IO_URING", "CONFIG_BPF_SYSCALL", "CONFIG_KEXEC", "CONFIG_DEVMEM", "CONFIG_PROC_KCORE"],
)
def test_own_fragment_never_selects_what_untrusted_code_must_not_have(line: str) -> None:
    assert not re.search(rf"^{line}=[ym]", kernel_fragment(), re.MULTILINE)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(StatePaths(tmp_path / "state").make())


def test_kernel_from_outside_is_copied_and_current(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel, "require_elf", lambda *_, **__: None)
    (tmp_path / "vmlinux").write_bytes(b"\x7fELF..Linux version 6.1.0-mine (me@here) #1..")
    entry = install_kernel(store, tmp_path / "vmlinux")
    (tmp_path / "vmlinux").unlink()
    assert store.current("kernel").file("vmlinux").read_bytes().startswith(b"\x7fELF")
    assert entry.meta["version"] == "6.1.0-mine"
    assert is_current_kernel(entry)


def test_kernel_from_outside_must_be_a_kernel(store: Store, tmp_path: Path) -> None:
    (tmp_path / "bzImage").write_bytes(b"MZ" + b"\0" * 4096)
    for path in (tmp_path / "bzImage", tmp_path, tmp_path / "absent"):
        with pytest.raises(SetupError):
            install_kernel(store, path)
    assert store.list() == []


def test_built_kernel_is_old_once_the_configuration_changes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = {"recipe": kernel._RECIPE, "fragment": kernel._fragment_sha256(), "source": "x"}
    entry = store.build("kernel", "abc", lambda _: {}, inputs=inputs)
    assert is_current_kernel(entry)
    monkeypatch.setattr(kernel, "kernel_fragment", lambda: "CONFIG_OTHER=y\n")
    assert not is_current_kernel(entry)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    tree = tmp_path / "linux-source-6.1"
    (tree / "drivers" / "gpu").mkdir(parents=True)
    for name in ("Makefile", "drivers/gpu/Kconfig", "drivers/gpu/card.c"):
        (tree / name).write_text("x")
    archive = tmp_path / "linux.tar.xz"
    with tarfile.open(archive, "w:xz") as tar:
        tar.add(tree, "linux-source-6.1")
    return archive


def unpack(work: Path, source: Path, key: str = "key") -> Path:
    work.mkdir(exist_ok=True)
    return kernel._unpacked(work, source, key, lambda _: None)


def test_source_is_unpacked_without_what_cannot_be_selected(tmp_path: Path, source: Path) -> None:
    tree = unpack(tmp_path / "work", source)
    assert (tree / "Makefile").is_file()
    assert (tree / "drivers/gpu/Kconfig").is_file()
    assert not (tree / "drivers/gpu/card.c").exists()


def test_unpacked_source_is_used_again_after_an_interruption(tmp_path: Path, source: Path) -> None:
    tree = unpack(tmp_path / "work", source)
    (tree / "half-done.o").write_text("x")
    assert unpack(tmp_path / "work", source) == tree
    assert (tree / "half-done.o").exists()


def test_source_that_was_unpacked_half_is_unpacked_again(tmp_path: Path, source: Path) -> None:
    tree = unpack(tmp_path / "work", source)
    (tmp_path / "work" / "tree.ready").unlink()
    (tree / "Makefile").unlink()
    (tree / "stray").write_text("x")
    tree = unpack(tmp_path / "work", source)
    assert (tree / "Makefile").is_file()
    assert not (tree / "stray").exists()


def test_other_configuration_starts_from_a_fresh_tree(tmp_path: Path, source: Path) -> None:
    tree = unpack(tmp_path / "work", source)
    (tree / "half-done.o").write_text("x")
    tree = unpack(tmp_path / "work", source, "other")
    assert not (tree / "half-done.o").exists()


def test_setting_that_the_source_does_not_know_stops_the_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "run_tool", lambda *_, **__: "")
    monkeypatch.setattr(kernel, "kernel_fragment", lambda: "CONFIG_64BIT=y\nCONFIG_NEW_THING=y\n")
    (tmp_path / ".config").write_text("CONFIG_64BIT=y\n")
    with pytest.raises(SetupError, match=r"did not take these settings: CONFIG_NEW_THING=y$"):
        kernel._configure(tmp_path)
