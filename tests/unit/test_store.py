from __future__ import annotations

import errno
import os
import shutil
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mayfly.errors import CorruptError, DiskFullError, NotFoundError, SetupError
from mayfly.host.paths import StatePaths
from mayfly.images import store as store_module
from mayfly.images.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def paths(tmp_path: Path) -> StatePaths:
    return StatePaths(tmp_path / "state").make()


@pytest.fixture
def store(paths: StatePaths) -> Store:
    return Store(paths)


def write(content: bytes = b"kernel", name: str = "vmlinux") -> Callable[[Path], dict[str, str]]:
    def builder(directory: Path) -> dict[str, str]:
        (directory / name).write_bytes(content)
        return {"version": "6.1"}

    return builder


def never(_: Path) -> None:
    pytest.fail("built again")


def litter(paths: StatePaths) -> list[Path]:
    return [path for path in paths.build.glob("*/*") if path.is_dir()]


def damage(path: Path, content: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(content)


def test_built_entry_is_current_and_read_only(store: Store, paths: StatePaths) -> None:
    built = store.build("kernel", "abc", write(), inputs={"source": "x"})
    entry = store.current("kernel")
    assert entry == built
    assert entry.file("vmlinux").read_bytes() == b"kernel"
    assert entry.file("vmlinux").stat().st_mode & 0o777 == 0o444
    assert entry.meta == {"version": "6.1"}
    assert entry.record.inputs == {"source": "x"}
    assert entry.record.created.endswith("Z")
    assert entry.size == 6
    assert litter(paths) == []
    store.verify(entry)


def test_programs_stay_executable(store: Store) -> None:
    def builder(directory: Path) -> None:
        (directory / "jailer").write_bytes(b"x")
        (directory / "jailer").chmod(0o700)

    entry = store.build("firecracker", "1", builder)
    assert entry.file("jailer").stat().st_mode & 0o777 == 0o555


def test_second_build_of_a_key_builds_nothing(store: Store) -> None:
    first = store.build("kernel", "abc", write())
    assert store.build("kernel", "abc", never) == first


def test_new_key_becomes_current_and_the_old_entry_stays(store: Store) -> None:
    old = store.build("kernel", "a", write(b"old"))
    store.build("kernel", "b", write(b"new"))
    assert store.current("kernel").key == "b"
    assert store.get("kernel", "a") == old
    assert [entry.key for entry in store.list()] == ["a", "b"]
    store.build("kernel", "a", never)
    assert store.current("kernel").key == "a"


def test_missing_kind_says_to_run_setup(store: Store) -> None:
    with pytest.raises(SetupError, match="run `mayfly setup`"):
        store.current("kernel")


def test_failed_builder_leaves_nothing(store: Store, paths: StatePaths) -> None:
    def builder(directory: Path) -> None:
        (directory / "half").write_bytes(b"x")
        raise SetupError("no")

    with pytest.raises(SetupError, match="no"):
        store.build("kernel", "abc", builder)
    assert store.get("kernel", "abc") is None
    assert litter(paths) == []


@pytest.mark.parametrize("moment", ["in the builder", "before the rename", "before the link"])
def test_process_killed_while_building_leaves_the_old_entry_in_use(
    store: Store, paths: StatePaths, moment: str
) -> None:
    store.build("kernel", "old", write(b"old"))
    child = os.fork()
    if child == 0:
        build_and_die(store, moment)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    assert store.current("kernel").file("vmlinux").read_bytes() == b"old"

    entry = store.build("kernel", "new", write(b"new"))
    store.verify(entry)
    assert store.current("kernel").file("vmlinux").read_bytes() == b"new"
    assert litter(paths) == []


def build_and_die(store: Store, moment: str) -> None:
    def die(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def builder(directory: Path) -> None:
        (directory / "vmlinux").write_bytes(b"new")
        if moment == "in the builder":
            die()

    if moment == "before the rename":
        Path.rename = die  # type: ignore[method-assign,assignment]
    if moment == "before the link":
        Path.replace = die  # type: ignore[method-assign,assignment]
    store.build("kernel", "new", builder)
    os._exit(0)


def test_changed_content_is_named_by_verify(store: Store) -> None:
    entry = store.build("kernel", "abc", write())
    damage(entry.file("vmlinux"), b"kernfl")
    with pytest.raises(CorruptError, match=r"vmlinux.*hash.*mayfly setup") as caught:
        store.verify(entry)
    assert caught.value.field == "vmlinux"


def test_changed_size_is_seen_without_hashing(store: Store) -> None:
    entry = store.build("kernel", "abc", write())
    damage(entry.file("vmlinux"), b"k")
    with pytest.raises(CorruptError, match="1 bytes, expected 6"):
        store.current("kernel")


def test_changed_content_of_the_same_size_is_seen_by_its_time(store: Store) -> None:
    entry = store.build("kernel", "abc", write())
    damage(entry.file("vmlinux"), b"kernfl")
    with pytest.raises(CorruptError, match="hash"):
        store.current("kernel")


def test_touched_file_with_its_content_unchanged_is_fine(store: Store) -> None:
    entry = store.build("kernel", "abc", write())
    os.utime(entry.file("vmlinux"), (1, 1))
    assert store.current("kernel").key == "abc"


def test_times_cut_to_seconds_by_a_copy_are_fine(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = store.build("kernel", "abc", write())
    whole = entry.record.files["vmlinux"].mtime_ns // 10**9 * 10**9
    os.utime(entry.file("vmlinux"), ns=(whole, whole))
    monkeypatch.setattr(store_module, "hash_file", never)
    assert store.current("kernel").key == "abc"


def test_missing_file_is_damage(store: Store) -> None:
    entry = store.build("kernel", "abc", write())
    entry.file("vmlinux").unlink()
    with pytest.raises(CorruptError, match="missing"):
        store.current("kernel")


def test_damaged_entry_is_set_aside_by_verified_and_built_again(store: Store, paths: StatePaths) -> None:
    entry = store.build("kernel", "abc", write())
    status = entry.file("vmlinux").stat()
    damage(entry.file("vmlinux"), b"kernfl")
    os.utime(entry.file("vmlinux"), ns=(status.st_atime_ns, status.st_mtime_ns))
    assert store.current("kernel").key == "abc", "size and time are as they were"
    with pytest.raises(CorruptError, match="mayfly setup"):
        store.verified("kernel")
    with pytest.raises(SetupError, match="mayfly setup"):
        store.current("kernel")
    store.build("kernel", "abc", write())
    assert store.verified("kernel").file("vmlinux").read_bytes() == b"kernel"
    assert litter(paths) == []


def test_build_replaces_an_entry_that_is_visibly_damaged(store: Store) -> None:
    entry = store.build("kernel", "abc", write())
    damage(entry.file("vmlinux"), b"")
    store.build("kernel", "abc", write())
    store.verify(store.current("kernel"))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(content=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_record_is_read_or_refused(store: Store, content: bytes) -> None:
    entry = store.build("kernel", "abc", write())
    damage(entry.path / "entry.json", content)
    with pytest.raises(CorruptError):
        store.get("kernel", "abc")
    assert store.list() == []


@pytest.mark.parametrize("name", ["../../etc/passwd", "..", "", "a/b"])
def test_record_that_names_a_file_outside_is_refused(store: Store, name: str) -> None:
    entry = store.build("kernel", "abc", write())
    text = (entry.path / "entry.json").read_text().replace('"vmlinux"', f'"{name}"')
    damage(entry.path / "entry.json", text.encode())
    with pytest.raises(CorruptError, match="outside"):
        store.current("kernel")


def test_huge_record_is_refused_unread(store: Store) -> None:
    entry = store.build("kernel", "abc", write())
    damage(entry.path / "entry.json", b" " * (1 << 20))
    with pytest.raises(CorruptError, match="too large"):
        store.current("kernel")


@pytest.mark.parametrize("name", ["../x", "", "A", "a/b", ".lock", "current", "x" * 81])
def test_names_that_are_no_names_are_refused(store: Store, name: str) -> None:
    with pytest.raises(SetupError, match="not a name"):
        store.build("kernel", name, never)


def test_builder_may_leave_plain_files_only(store: Store) -> None:
    def link(directory: Path) -> None:
        (directory / "vmlinux").symlink_to("/etc/passwd")

    with pytest.raises(SetupError, match="not a plain file"):
        store.build("kernel", "abc", link)
    assert Path("/etc/passwd").stat().st_mode & 0o777 == 0o644


def test_full_disk_is_told_with_figures(store: Store, paths: StatePaths) -> None:
    def builder(_: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DiskFullError, match=r"no space left in .*MiB free.*MAYFLY_HOME"):
        store.build("kernel", "abc", builder)
    assert litter(paths) == []


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_too_little_space_is_told_before_work_starts(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1 << 30, 1 << 30, 5 << 20))
    with pytest.raises(DiskFullError, match="about 900 MiB needed, 5 MiB free"):
        store.build("kernel", "abc", never, needed_bytes=900 << 20)


def test_builders_of_one_kind_wait_for_each_other(paths: StatePaths) -> None:
    runs: list[int] = []
    first_is_in, go_on = threading.Event(), threading.Event()

    def builder(directory: Path) -> None:
        runs.append(1)
        first_is_in.set()
        go_on.wait(10)
        (directory / "vmlinux").write_bytes(b"x")

    threads = [threading.Thread(target=lambda: Store(paths).build("kernel", "abc", builder)) for _ in range(2)]
    threads[0].start()
    assert first_is_in.wait(10)
    threads[1].start()
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert runs == [1]


def test_kinds_that_share_a_beginning_do_not_share_litter(store: Store, paths: StatePaths) -> None:
    other = paths.build / "image-python" / "abc.1"
    other.mkdir(parents=True)
    store.build("image", "abc", write())
    assert other.is_dir()


def test_removed_entry_is_gone_and_no_longer_current(store: Store, paths: StatePaths) -> None:
    entry = store.build("kernel", "abc", write())
    store.remove(entry)
    assert store.list() == []
    assert litter(paths) == []
    with pytest.raises(SetupError):
        store.current("kernel")
    with pytest.raises(NotFoundError):
        store.remove(entry)
