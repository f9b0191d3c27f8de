"""The part of a benchmark that runs in an emulated host of its own, in place of a node."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import msgspec

from mayfly.bench.guest import measure_guest
from mayfly.bench.metrics import Samples  # noqa: TC001 - msgspec reads it
from mayfly.host.paths import StatePaths
from mayfly.observe.log import configure_log

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Findings", "Order", "measure_inside"]


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be measured; `bench` of the code drive's configuration."""

    ids: tuple[str, ...]
    quick: bool


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """What was found, and why the rest was not, by metric id."""

    found: dict[str, Samples]
    missing: dict[str, str]
    firecracker: str = ""


def measure_inside(state: str, order: object, say: Callable[[str], None]) -> None:
    """Measure, and `say` one line `found JSON`."""
    configure_log()
    asked = msgspec.convert(order, Order)
    found, missing = anyio.run(
        lambda: measure_guest(StatePaths(Path(state)), "emulated", frozenset(asked.ids), quick=asked.quick, say=say)
    )
    # ASCII only, since a console carries it
    say(f"found {json.dumps(msgspec.to_builtins(Findings(found=found, missing=missing)))}")
