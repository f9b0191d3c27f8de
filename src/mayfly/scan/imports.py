"""Import validation: where a module would come from, asked in a fixed order.

The guest's standard library, then what the image holds, then names that are well known, then names that look like a
well-known one, then unknown. What the policy allows or denies is judged by its own rules, whatever the answer here.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from mayfly.scan.layers.popular import NOBODY
from mayfly.scan.packages import KNOWN_MODULES

if TYPE_CHECKING:
    from mayfly.scan.layers.popular import Popular
    from mayfly.scan.manifest import Manifest
    from mayfly.scan.policy import Names

__all__ = ["Provenance", "import_denied", "import_named", "locate", "resembles"]

Provenance = Literal["stdlib", "image", "known", "lookalike", "unknown"]
_ALWAYS = frozenset({"__future__", "__main__"})


def locate(module: str, manifest: Manifest | None, popular: Popular = NOBODY) -> Provenance:
    """Where the top-level name of `module` would come from. `popular` adds to the names that are well known."""
    top = module.partition(".")[0]
    if manifest is None:
        if top in sys.stdlib_module_names or top in _ALWAYS:
            return "stdlib"
    elif top in manifest.importable or top in _ALWAYS:
        return "stdlib" if top in manifest.standard else "image"
    if top in KNOWN_MODULES or top.lower() in popular.known:
        return "known"
    # A module of the scanner's own standard library that the guest lacks (removed since) is known as well.
    if top in sys.stdlib_module_names:
        return "known"
    return "lookalike" if resembles(top, popular) else "unknown"


@lru_cache(maxsize=4096)
def resembles(name: str, popular: Popular = NOBODY) -> str | None:
    """The well-known name that `name` is one slip away from, or None. Names under five letters resemble nothing."""
    from rapidfuzz.distance import OSA

    folded = name.lower().replace("-", "_")
    # `_pytest` is pytest's own: a leading or trailing underscore misleads nobody.
    if len(folded) < 5 or folded.startswith("_") or folded.rstrip("_") != folded:
        return None
    for known in (*_targets(), *popular.imitated):
        other = known.lower()
        if abs(len(other) - len(folded)) > 1:
            continue
        if folded == other or OSA.distance(folded, other, score_cutoff=1) <= 1:
            return known
    return None


@lru_cache(maxsize=1)
def _targets() -> tuple[str, ...]:
    popular = {name for name in sys.stdlib_module_names if not name.startswith("_")} | KNOWN_MODULES
    return tuple(sorted(name for name in popular if len(name) >= 5))


def import_named(module: str, names: tuple[str, ...]) -> bool:
    """True when `names` holds the module or one of its parents."""
    if not names:
        return False
    parts = module.split(".")
    return any(".".join(parts[:count]) in names for count in range(1, len(parts) + 1))


def import_denied(module: str, names: Names) -> bool:
    """True when the policy names the module as denied; a longer allowed name wins over a shorter denied one."""
    denied = [name for name in names.deny if module == name or module.startswith(name + ".")]
    if not denied:
        return False
    allowed = [name for name in names.allow if module == name or module.startswith(name + ".")]
    return len(max(denied, key=len)) >= len(max(allowed, key=len, default=""))
