"""The most downloaded packages of PyPI, as GuardDog's package lists them: who is well known, and who is imitated."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import msgspec

from mayfly.scan.layers.guarddog import guarddog_folder
from mayfly.scan.layers.layer import LayerError

__all__ = ["NOBODY", "Popular", "popular_packages"]

_MAX_BYTES = 8 * 1024 * 1024
_KNOWN, _IMITATED = 15_000, 5_000


class Popular(NamedTuple):
    """Names as imports spell them. `known` are the top 15,000, `imitated` the top 5,000, the most downloaded first."""

    known: frozenset[str]
    imitated: tuple[str, ...]


NOBODY = Popular(frozenset(), ())


class _List(msgspec.Struct):
    packages: list[str]


@lru_cache(maxsize=1)
def popular_packages() -> Popular:
    """The lists; empty ones where GuardDog is not installed or its list cannot be read."""
    try:
        file = guarddog_folder() / "analyzer" / "metadata" / "resources" / "top_pypi_packages.json"
        with file.open("rb") as stream:
            names = msgspec.json.decode(stream.read(_MAX_BYTES), type=_List).packages
    except (LayerError, OSError, msgspec.MsgspecError):
        return NOBODY
    spelled = list(dict.fromkeys(name.lower().replace("-", "_").replace(".", "_") for name in names[:_KNOWN]))
    return Popular(frozenset(spelled), tuple(name for name in spelled[:_IMITATED] if len(name) >= 5))
