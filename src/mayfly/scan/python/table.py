"""What calls do: the tables of every family in one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mayfly.scan.python import on_code, on_files, on_network, on_processes, on_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from mayfly.scan.facts import Value
    from mayfly.scan.python.site import Site

__all__ = ["METHODS", "TABLE"]

TABLE: dict[str, Callable[[Site], Value]] = {
    **on_text.CALLS,
    **on_files.CALLS,
    **on_network.CALLS,
    **on_processes.CALLS,
    **on_code.CALLS,
}
"""By the call's resolved name."""

METHODS: dict[str, Callable[[Site], Value]] = {
    **on_text.METHODS,
    **on_files.METHODS,
    **on_network.METHODS,
    **on_processes.METHODS,
}
"""By the method's name, where what it is called on is not known by name."""
