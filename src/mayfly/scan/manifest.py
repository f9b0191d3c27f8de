"""What an image holds, as its manifest says."""

from __future__ import annotations

import hashlib
from functools import cached_property

import msgspec

from mayfly.errors import InvalidRequestError

__all__ = ["Manifest", "parse_manifest"]

_MAX_BYTES = 4 * 1024 * 1024


class Manifest(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """What programs find in an image: `stdlib` and `modules` are importable top-level names.

    `python` is the version as `3.13.5`; `distributions` maps a distribution's name to its version.
    """

    image: str
    python: str = ""
    stdlib: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    distributions: dict[str, str] = {}
    preload: tuple[str, ...] = ()
    """Modules that the interpreter waiting in a template has imported."""

    @cached_property
    def standard(self) -> frozenset[str]:
        """The top-level names of the standard library."""
        return frozenset(self.stdlib)

    @cached_property
    def importable(self) -> frozenset[str]:
        """Every top-level name that an import finds."""
        return self.standard.union(self.modules)

    @cached_property
    def digest(self) -> str:
        """Twelve hexadecimal digits of its content, to name it by."""
        return hashlib.sha256(msgspec.json.encode(self, order="deterministic")).hexdigest()[:12]


def parse_manifest(data: bytes) -> Manifest:
    """The manifest in `manifest.json`'s bytes. InvalidRequestError when it is not one."""
    if len(data) > _MAX_BYTES:
        raise InvalidRequestError(f"a manifest has at most {_MAX_BYTES} bytes", field="manifest")
    try:
        return msgspec.json.decode(data, type=Manifest)
    except msgspec.MsgspecError as error:
        raise InvalidRequestError(f"not an image manifest: {error}", field="manifest") from error
