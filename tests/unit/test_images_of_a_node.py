"""A program is judged against what its own image holds, runs in that image, and is told which images there are."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from mayfly.errors import CorruptError, InvalidRequestError, SetupError
from mayfly.host.paths import StatePaths
from mayfly.images.store import Store
from mayfly.model import Verdict, image_for
from mayfly.node.gate import Gate
from mayfly.node.parts import node_artefacts
from mayfly.scan.manifest import Manifest, parse_manifest
from mayfly.scan.policy import builtin_policy
from mayfly.validation import make_request

if TYPE_CHECKING:
    from pathlib import Path

PYTHON = Manifest(image="python", modules=("numpy",))
NODE = Manifest(image="node")


class _Scanner:
    def __init__(self) -> None:
        self.judged: list[Manifest] = []

    async def scan(self, code: bytes, lang: str, policy: object, manifest: Manifest) -> Verdict:
        del code, lang, policy
        self.judged.append(manifest)
        return Verdict(verdict="allow")


@pytest.fixture
def scanner() -> _Scanner:
    return _Scanner()


@pytest.fixture
def gate(scanner: _Scanner) -> Gate:
    policies = {"default": builtin_policy("default")}
    return Gate(scanner, PYTHON, policies, {"python": PYTHON, "node": NODE})  # type: ignore[arg-type]


@pytest.mark.anyio
async def test_a_program_is_judged_by_the_image_it_is_for(gate: Gate, scanner: _Scanner) -> None:
    for values in ({"code": ""}, {"code": "", "image": "node"}, {"code": "", "lang": "bash"}):
        await gate.pass_through(make_request(values))
    assert scanner.judged == [PYTHON, NODE, PYTHON]
    assert gate.images == ("node", "python")


def test_an_image_that_is_not_there_is_refused_with_those_there_are(gate: Gate) -> None:
    with pytest.raises(InvalidRequestError, match="image must be one of node, python, not 'ruby'") as caught:
        gate.manifest("ruby")
    assert caught.value.field == "image"


@pytest.mark.parametrize(
    ("lang", "asked", "image"),
    [("python", None, "python"), ("bash", None, "python"), ("javascript", None, "node"), ("bash", "node", "node")],
)
def test_a_language_has_an_image_unless_one_is_asked_for(lang: str, asked: str | None, image: str) -> None:
    assert image_for(lang, asked) == image


def test_a_manifest_says_what_is_imported_ahead_and_may_be_silent_about_it() -> None:
    assert parse_manifest(b'{"image": "python"}').preload == ()
    assert parse_manifest(b'{"image": "python", "preload": ["numpy", "json"]}').preload == ("numpy", "json")
    with pytest.raises(InvalidRequestError):
        parse_manifest(b'{"image": "python", "preload": "numpy"}')


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with stand-ins for all that a node needs, and an image beside `python`."""
    store = Store(StatePaths(tmp_path).make())

    def make(kind: str, meta: dict[str, str], **files: Any) -> None:
        def build(directory: Path) -> dict[str, str]:
            for name, data in files.items():
                (directory / name.replace("_", ".")).write_bytes(data)
            return meta

        store.build(kind, "0" * 12, build)

    make("firecracker", {"version": "1.15.1"}, firecracker=b"f", jailer=b"j")
    make("kernel", {}, vmlinux=b"k")
    for image, preload in (("python", ["numpy"]), ("node", [])):
        manifest = json.dumps({"image": image, "preload": preload}).encode()
        make(f"image-{image}", {}, rootfs_squashfs=image.encode(), manifest_json=manifest)
    return store


def test_a_node_has_every_image_in_its_store(store: Store) -> None:
    artefacts = node_artefacts(store, verify=True)
    assert set(artefacts.images) == {"python", "node"}
    assert artefacts.boot_source("kvm", "node").name == "node@000000000000"
    python, node = artefacts.keys("python"), artefacts.keys("node")
    assert python != node
    assert "preload numpy" in python
    assert "format 9" in python
    with pytest.raises(SetupError):
        artefacts.image("ruby")


def test_an_extra_image_that_is_damaged_is_left_out_and_the_usual_one_is_not(store: Store) -> None:
    for image, missing in (("node", None), ("python", CorruptError)):
        path = store.current(f"image-{image}").file("rootfs.squashfs")
        path.chmod(0o600)
        path.write_bytes(b"something longer than before")
        if missing is None:
            assert set(node_artefacts(store, verify=True).images) == {"python"}
        else:
            with pytest.raises(missing):
                node_artefacts(store, verify=True)
