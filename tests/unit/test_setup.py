from __future__ import annotations

import errno
import threading
from typing import TYPE_CHECKING

import pytest

from mayfly.errors import DiskFullError, SetupError
from mayfly.host.paths import StatePaths
from mayfly.images import emulated, firecracker, guest, kernel, setup
from mayfly.images.progress import BaseReporter, SilentReporter
from mayfly.images.setup import run_setup
from mayfly.images.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mayfly.images.packages import Purpose
    from mayfly.images.store import Entry


class Machine:
    """Builders that leave small files instead of images; `made` says what was really built."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[str] = []
        self.asked: list[frozenset[Purpose]] = []
        self.failing: dict[str, BaseException] = {}
        monkeypatch.setattr(setup, "missing_needs", self._missing)
        monkeypatch.setattr(setup, "install_packages", lambda *_, **__: self.made.append("packages"))
        monkeypatch.setattr(firecracker, "install_firecracker", self._builder("firecracker", "1"))
        inputs = {"recipe": kernel._RECIPE, "fragment": kernel._fragment_sha256()}
        monkeypatch.setattr(kernel, "build_kernel", self._builder("kernel", "k", inputs))
        monkeypatch.setattr(guest, "build_guest_image", self._build_image)
        monkeypatch.setattr(emulated, "runtime_packages", dict)
        key = emulated.emulated_host_key({})
        monkeypatch.setattr(emulated, "build_emulated_host", self._builder("emulated-host", key))

    def _build_image(self, store: Store, name: str, **_: object) -> Entry:
        return self._builder(guest.image_kind(name), guest.guest_image_key(name))(store)

    def _missing(self, purposes: frozenset[Purpose]) -> list[object]:
        self.asked.append(purposes)
        return []

    def _builder(self, kind: str, key: str, inputs: dict[str, str] | None = None) -> Callable[..., Entry]:
        def write(directory: Path) -> dict[str, str]:
            if kind in self.failing:
                raise self.failing[kind]
            (directory / "file").write_bytes(kind.encode())
            self.made.append(kind)
            return {"version": "1"}

        def build(store: Store, *_: object, **__: object) -> Entry:
            return store.build(kind, key, write, inputs=inputs)

        return build


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


@pytest.fixture
def paths(tmp_path: Path) -> StatePaths:
    return StatePaths(tmp_path / "state")


def states(reporter: BaseReporter) -> dict[str, str]:
    return {record.name: record.state for record in reporter.records}


def test_first_set_up_makes_everything_in_order(machine: Machine, paths: StatePaths) -> None:
    reporter = SilentReporter()
    run_setup(paths, reporter, emulated=True)
    assert machine.made == ["firecracker", "kernel", "image-python", "emulated-host"]
    assert list(states(reporter)) == [
        "System packages",
        "Firecracker",
        "Guest kernel",
        "Guest image",
        "Emulated host",
    ]
    assert set(list(states(reporter).values())[1:]) == {"done"}
    assert machine.asked == [{"node", "kernel", "images", "emulated"}]


def test_second_set_up_makes_nothing_and_needs_no_build_tools(machine: Machine, paths: StatePaths) -> None:
    run_setup(paths, SilentReporter(), emulated=True)
    machine.made.clear()
    reporter = SilentReporter()
    run_setup(paths, reporter, emulated=True)
    assert machine.made == []
    assert set(states(reporter).values()) == {"skipped"}
    assert machine.asked[-1] == {"node", "emulated"}


def test_emulated_host_is_left_out_where_it_is_not_wanted(machine: Machine, paths: StatePaths) -> None:
    run_setup(paths, SilentReporter(), emulated=False)
    assert "emulated-host" not in machine.made


@pytest.mark.parametrize("failure", [SetupError("no network"), KeyboardInterrupt()], ids=["error", "Ctrl-C"])
def test_interrupted_set_up_goes_on_where_it_stopped(
    machine: Machine, paths: StatePaths, failure: BaseException
) -> None:
    machine.failing["image-python"] = failure
    reporter = SilentReporter()
    with pytest.raises(type(failure)):
        run_setup(paths, reporter, emulated=False)
    assert states(reporter)["Guest image"] == "failed"
    machine.failing.clear()
    machine.made.clear()
    run_setup(paths, SilentReporter(), emulated=False)
    assert machine.made == ["image-python"]


def test_full_disk_is_told_as_such(machine: Machine, paths: StatePaths) -> None:
    machine.failing["kernel"] = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(DiskFullError, match="no space left"):
        run_setup(paths, SilentReporter(), emulated=False)


def test_other_operating_system_error_names_the_step(machine: Machine, paths: StatePaths) -> None:
    machine.failing["kernel"] = PermissionError(errno.EACCES, "Permission denied")
    with pytest.raises(SetupError, match=r"Guest kernel: .*Permission denied"):
        run_setup(paths, SilentReporter(), emulated=False)


def test_damaged_artefact_is_made_again(machine: Machine, paths: StatePaths) -> None:
    run_setup(paths, SilentReporter(), emulated=False)
    file = Store(paths).current("image-python").file("file")
    file.chmod(0o644)
    file.write_bytes(b"short")
    machine.made.clear()
    run_setup(paths, SilentReporter(), emulated=False)
    assert machine.made == ["image-python"]
    Store(paths).verified("image-python")


def test_outdated_image_is_made_again(machine: Machine, paths: StatePaths) -> None:
    Store(paths.make()).build("image-python", "old", lambda _: {})
    run_setup(paths, SilentReporter(), emulated=False)
    assert "image-python" in machine.made


def test_kernel_from_outside_replaces_the_build_and_stays(
    machine: Machine, paths: StatePaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel, "require_elf", lambda *_, **__: None)
    (tmp_path / "vmlinux").write_bytes(b"mine")
    run_setup(paths, SilentReporter(), kernel=tmp_path / "vmlinux", emulated=False)
    run_setup(paths, SilentReporter(), emulated=False)
    assert "kernel" not in machine.made
    assert all("kernel" not in purposes for purposes in machine.asked)
    assert Store(paths).current("kernel").file("vmlinux").read_bytes() == b"mine"


class Listener(SilentReporter):
    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []
        self.noted = threading.Event()

    def note(self, text: str) -> None:
        self.notes.append(text)
        self.noted.set()


def test_second_set_up_waits_for_the_first_and_says_so(
    machine: Machine, paths: StatePaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = Listener()
    second = threading.Thread(target=lambda: run_setup(paths, listener, emulated=False))

    def slow(*_: object, **__: object) -> list[object]:
        if not second.ident:
            second.start()
            assert listener.noted.wait(10)
            assert listener.records == [], "it works while another does"
        return []

    monkeypatch.setattr(setup, "missing_needs", slow)
    run_setup(paths, SilentReporter(), emulated=False)
    second.join(10)
    assert "waiting" in listener.notes[0]
    assert set(states(listener).values()) == {"skipped"}
    assert machine.made == ["firecracker", "kernel", "image-python"]


def test_an_image_that_is_asked_for_is_made_beside_the_one_for_python(machine: Machine, paths: StatePaths) -> None:
    reporter = SilentReporter()
    run_setup(paths, reporter, emulated=False, images=("node", "python", "node"))
    assert machine.made == ["firecracker", "kernel", "image-python", "image-node"]
    assert states(reporter)["Guest image node"] == "done"
    run_setup(paths, reporter, emulated=False)
    assert machine.made.count("image-node") == 1


def test_an_image_that_does_not_exist_is_refused_before_anything_is_made(machine: Machine, paths: StatePaths) -> None:
    with pytest.raises(SetupError, match="there is python, node") as caught:
        run_setup(paths, SilentReporter(), emulated=False, images=("ruby",))
    assert caught.value.field == "image"
    assert machine.made == []
