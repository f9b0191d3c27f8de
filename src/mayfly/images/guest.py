"""The guest images: read-only root file systems that programs run in."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import tarfile
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from mayfly.errors import SetupError
from mayfly.images.commands import run_tool
from mayfly.images.debian import SOURCE_DATE_EPOCH, SUITE, Debian, make_root_tar

if TYPE_CHECKING:
    from pathlib import Path

    from mayfly.images.progress import Step
    from mayfly.images.store import Entry, Store

__all__ = ["IMAGES", "MANIFEST_MAX_BYTES", "build_guest_image", "guest_image_key", "image_kind", "read_manifest"]

MANIFEST_MAX_BYTES = 1 << 20
"""A longer `manifest.json` is none."""

_RECIPE = "3"
# the whole of CPython that Debian splits up, without what needs a display or installs packages;
# netbase for names of protocols and services, tzdata for zoneinfo
_BASE = ("python3", "python3-gdbm", "netbase", "tzdata", "mount", "procps")
# zstd where the size counts; blocks of 256 KiB are a compromise of size and what one page of a library costs to read
_SMALL = ("-comp", "zstd", "-Xcompression-level", "15", "-b", "256K")
# these are not taken from the archive: the root directory would be writable for everybody
_ROOT = ("-root-mode", "0755", "-root-uid", "0", "-root-gid", "0")
_NEEDED_BYTES = 2500 << 20
_PACK_TIMEOUT_S = 900.0
_MODULE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")


@dataclass(frozen=True)
class _Recipe:
    """How one image is made: Debian's packages beside the base, and what its tree is then put through.

    `promised` are modules that must be importable in the end, `preload` names a file with those that the runner
    imports before its template is made; `sources` are the top-level modules of packages whose sources are kept beside
    their compiled form, all where it is empty.
    """

    packages: tuple[str, ...]
    paths: tuple[str, ...] = ()
    trim: str | None = None
    promised: tuple[str, ...] = ()
    preload: str | None = None
    sources: tuple[str, ...] = ()

    def script(self, name: str) -> str:
        """What finishes the tree, whole."""
        words = {
            "image": name,
            "trim": "" if self.trim is None else _data(self.trim),
            "promised": ", ".join(self.promised),
            "preload": " ".join(self.modules()),
            "sources": " ".join(self.sources),
        }
        return "".join(f"{key}={shlex.quote(value)}\n" for key, value in words.items()) + _data("guest-finish.sh")

    def modules(self) -> list[str]:
        """The modules to preload. SetupError for a line that is no name of a module."""
        lines = [] if self.preload is None else _data(self.preload).splitlines()
        names = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        for module in names:
            if not _MODULE.fullmatch(module):
                raise SetupError(f"{self.preload}: {module!r} is no name of a module", field="preload")
        return names


_RECIPES = {
    "python": _Recipe(
        packages=(
            *("python3-numpy", "python3-pandas", "python3-matplotlib", "python3-scipy", "python3-sklearn"),
            *("python3-sympy", "python3-pil", "python3-openpyxl", "python3-requests", "python3-httpx"),
            *("python3-bs4", "python3-lxml", "python3-ipython", "python3-plotly", "python3-altair"),
            *("python3-tabulate", "python3-yaml", "python3-networkx", "python3-seaborn", "python3-tqdm"),
        ),
        paths=(
            "path-exclude=/usr/lib/python3/dist-packages/*/tests/*",
            "path-include=/usr/lib/python3/dist-packages/numpy/_core/tests/_natype.py",  # numpy.testing imports it
            "path-exclude=/usr/lib/python3/dist-packages/*-stubs/*",
            "path-exclude=/usr/share/unicode/*",
            "path-exclude=/usr/share/javascript/*",
        ),
        trim="python-trim.sh",
        promised=(
            *("numpy", "pandas", "matplotlib.pyplot", "scipy.stats", "scipy.optimize", "sklearn.linear_model"),
            *("sklearn.ensemble", "sklearn.datasets", "sympy", "PIL.Image", "openpyxl", "requests", "httpx", "bs4"),
            *("lxml.etree", "IPython", "plotly.express", "altair", "tabulate", "yaml", "networkx", "seaborn"),
            *("tqdm", "pytz", "dateutil.parser", "jinja2", "dbm.gnu", "sqlite3", "ssl"),
        ),
        preload="python-preload.txt",
        # those that tracebacks of programs pass through most; the others would take 20 MB
        sources=(
            *("numpy", "pandas", "matplotlib", "seaborn", "PIL", "requests", "httpx", "bs4", "openpyxl", "yaml"),
            *("dateutil", "tabulate", "tqdm"),
        ),
    ),
    "node": _Recipe(packages=("nodejs",), promised=(), trim="node-trim.sh"),
}

IMAGES = tuple(_RECIPES)
"""Names of the images that can be built; the first is made by set-up."""


def image_kind(name: str) -> str:
    """Kind in the store of the image `name`. SetupError for a name that is none."""
    if name not in _RECIPES:
        raise SetupError(f"there is no image {name[:80]!r}; there is {', '.join(IMAGES)}", field="image")
    return f"image-{name}"


def guest_image_key(name: str) -> str:
    """What the image is made from, hashed: recipe, suite, packages, scripts; not the mirror's state."""
    recipe = _RECIPES[name]
    packages = (*_BASE, *recipe.packages)
    parts = (_RECIPE, SUITE, ",".join(packages), ",".join(recipe.paths), " ".join(_SMALL), recipe.script(name))
    return hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:32]


def build_guest_image(store: Store, name: str = "python", *, step: Step | None = None) -> Entry:
    """The image's entry with `rootfs.squashfs` and `manifest.json`, built unless it is there.

    The manifest says what a program can import: `image`, `python`, `stdlib` and `modules` (names of top-level
    modules), `distributions` and `packages` (name to version); `licences` (name of a package to the short names in
    its copyright file, which lies in the image too); `preload` (modules that the runner imports beforehand);
    `bytes` (size of the file system).
    """
    kind = image_kind(name)
    recipe = _RECIPES[name]
    packages = (*_BASE, *recipe.packages)

    def build(directory: Path) -> dict[str, str]:
        tar = directory / "root.tar"
        debian = Debian(packages, recipe.script(name), paths=recipe.paths, compile_python=False)
        make_root_tar(debian, tar, detail=None if step is None else step.detail)
        if step is not None:
            step.detail("packing the file system")
        target = directory / "rootfs.squashfs"
        _pack(tar, target)
        manifest = _take_manifest(tar)
        tar.unlink()
        manifest["bytes"] = target.stat().st_size
        (directory / "manifest.json").write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
        count = str(len(manifest.get("packages", ())))
        return {"image": name, "suite": SUITE, "python": manifest["python"], "packages": count}

    inputs = {"recipe": _RECIPE, "suite": SUITE, "packages": " ".join(packages)}
    return store.build(kind, guest_image_key(name), build, inputs=inputs, needed_bytes=_NEEDED_BYTES)


def read_manifest(entry: Entry) -> dict[str, Any]:
    """The manifest of a built image. SetupError when it is none, CorruptError when the entry has none."""
    with entry.file("manifest.json").open("rb") as stream:
        return _parse_manifest(stream.read(MANIFEST_MAX_BYTES + 1))


def _data(name: str) -> str:
    return (files("mayfly.images") / "data" / name).read_text(encoding="utf-8")


def _pack(tar: Path, target: Path) -> None:
    with tar.open("rb") as stream:
        run_tool(
            # not sqfstar, which does not take a level of compression in the version of Debian 12
            ["mksquashfs", "-", str(target), "-tar", "-quiet", "-no-progress", "-no-xattrs", *_ROOT, *_SMALL],
            timeout_s=_PACK_TIMEOUT_S,
            stdin=stream,
            env={"SOURCE_DATE_EPOCH": SOURCE_DATE_EPOCH},
        )


def _take_manifest(tar: Path) -> dict[str, Any]:
    """The manifest that the image's own Python wrote while the tree was finished."""
    wanted = "usr/share/mayfly/manifest.json"
    with tarfile.open(tar, "r:") as archive:
        for member in archive:
            if member.name.removeprefix("./") == wanted and member.isfile():
                stream = archive.extractfile(member)
                return _parse_manifest(b"" if stream is None else stream.read(MANIFEST_MAX_BYTES + 1))
    raise SetupError("the image has no manifest")


def _parse_manifest(data: bytes) -> dict[str, Any]:
    if len(data) > MANIFEST_MAX_BYTES:
        raise SetupError("the image's manifest is too large")
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise SetupError(f"the image's manifest is no JSON: {error}") from error
    if not isinstance(found, dict) or not isinstance(found.get("python"), str):
        raise SetupError("the image's manifest does not name its Python")
    return found
