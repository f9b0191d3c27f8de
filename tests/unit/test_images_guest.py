"""What guest images are made of, and how the command line tells of them."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mayfly.cli import main
from mayfly.errors import SetupError
from mayfly.host.paths import StatePaths
from mayfly.images import guest
from mayfly.images.store import Store
from mayfly.scan.manifest import parse_manifest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_MANIFEST = {
    "image": "python",
    "python": "3.13.5",
    "stdlib": ["json"],
    "modules": ["numpy"],
    "distributions": {"numpy": "2.2.4"},
    "packages": {"python3-numpy": "1:2.2.4", "bash": "5.2"},
    "licences": {"python3-numpy": ["BSD-3-Clause"], "bash": []},
    "preload": ["json", "numpy"],
    "bytes": 5,
}


@pytest.fixture
def paths(tmp_path: Path) -> StatePaths:
    paths = StatePaths(tmp_path / "state").make()

    def fill(directory: Path) -> dict[str, str]:
        (directory / "rootfs.squashfs").write_bytes(b"image")
        (directory / "manifest.json").write_text(json.dumps(_MANIFEST))
        return {"image": "python", "packages": "2"}

    Store(paths).build("image-python", "abc", fill)
    return paths


@pytest.fixture
def run(
    paths: StatePaths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[object, str, str]]:
    """`mayfly image …`: its exit code and what it prints."""

    def run(*args: str) -> tuple[object, str, str]:
        monkeypatch.setenv("MAYFLY_HOME", str(paths.root))
        with pytest.raises(SystemExit) as ended:
            main(["image", *args])
        printed = capsys.readouterr()
        return ended.value.code, printed.out, printed.err

    return run


@pytest.mark.parametrize("name", guest.IMAGES)
def test_every_image_has_a_key_of_its_own_and_a_list_of_modules(name: str) -> None:
    assert guest.image_kind(name) == f"image-{name}"
    assert guest.guest_image_key(name) == guest.guest_image_key(name)
    assert len({guest.guest_image_key(each) for each in guest.IMAGES}) == len(guest.IMAGES)
    assert all(name and " " not in name for name in guest._RECIPES[name].modules())


def test_the_python_image_promises_what_data_code_expects() -> None:
    promised = " ".join(guest._RECIPES["python"].promised)
    for name in ("numpy", "pandas", "matplotlib", "scipy", "sklearn", "sympy", "PIL", "openpyxl", "requests", "httpx"):
        assert name in promised
    assert {"numpy", "pandas", "matplotlib.pyplot"} <= set(guest._RECIPES["python"].modules())


@pytest.mark.parametrize("name", ["", "ruby", "../x", "python\n", "x" * 1000])
def test_an_unknown_image_is_named_with_those_there_are(name: str) -> None:
    with pytest.raises(SetupError, match="there is python, node") as caught:
        guest.image_kind(name)
    assert caught.value.field == "image"
    assert len(caught.value.message) < 300


@given(st.binary(max_size=2000))
def test_any_bytes_are_a_manifest_or_a_set_up_error(data: bytes) -> None:
    with contextlib.suppress(SetupError):
        assert isinstance(guest._parse_manifest(data)["python"], str)


def test_a_manifest_that_is_too_long_is_refused() -> None:
    with pytest.raises(SetupError, match="too large"):
        guest._parse_manifest(b" " * (guest.MANIFEST_MAX_BYTES + 1))


def test_the_scan_reads_an_images_manifest() -> None:
    manifest = parse_manifest(json.dumps(_MANIFEST).encode())
    assert manifest.importable == {"json", "numpy"}


def test_ls_says_size_key_time_and_number_of_packages(run: Callable[..., tuple[object, str, str]]) -> None:
    _, line, _ = run("ls")
    assert line.startswith("image-python      abc")
    assert "packages 2" in line
    entry = json.loads(run("ls", "--json")[1])[0]
    assert (entry["kind"], entry["key"], entry["meta"]["packages"]) == ("image-python", "abc", "2")
    assert entry["created"].endswith("Z")


def test_show_says_what_an_image_holds(run: Callable[..., tuple[object, str, str]]) -> None:
    _, shown, _ = run("show", "python")
    for word in ("3.13.5", "abc", "numpy 2.2.4", "json, numpy"):
        assert word in shown
    assert json.loads(run("show", "python", "--json")[1]) == _MANIFEST


def test_licences_are_listed_for_every_package(run: Callable[..., tuple[object, str, str]]) -> None:
    _, shown, _ = run("show", "python", "--licences")
    assert [line.split() for line in shown.splitlines()] == [
        ["bash", "5.2", "see", "its", "copyright", "file"],
        ["python3-numpy", "1:2.2.4", "BSD-3-Clause"],
    ]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("show", "node"), "image-node is not there"),
        (("show", "ruby"), "there is python, node"),
        (("build", "ruby"), "there is python, node"),
    ],
)
def test_an_image_that_is_not_there_is_one_sentence(
    run: Callable[..., tuple[object, str, str]], args: tuple[str, str], words: str
) -> None:
    code, out, err = run(*args)
    assert (code, out) == (125, "")
    assert words in err
    assert len(err.splitlines()) == 1
