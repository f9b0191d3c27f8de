"""Steps with their undo: what has been done is undone in reverse order, each undo tried whatever the others did."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import structlog

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["UndoList"]

_log = structlog.get_logger("mayfly.vmm")


class UndoList:
    """The undos of the steps taken so far, by name."""

    def __init__(self) -> None:
        self._steps: list[tuple[str, Callable[[], Awaitable[None]]]] = []

    def add(self, name: str, undo: Callable[[], Awaitable[None]]) -> None:
        """Remember how to undo a step. Call it before the step, if a half-done step must be undone as well."""
        self._steps.append((name, undo))

    async def unwind(self, *, deadline_s: float = 10.0) -> Exception | None:
        """Undo everything, newest first, shielded from cancellation; the first failure is returned, all are logged.

        An undo that failed stays in the list, so that a later call tries it again.
        """
        first: Exception | None = None
        failed: list[tuple[str, Callable[[], Awaitable[None]]]] = []
        with anyio.CancelScope(shield=True):
            while self._steps:
                name, undo = self._steps.pop()
                try:
                    with anyio.fail_after(deadline_s):
                        await undo()
                except Exception as error:  # noqa: BLE001 - the others must still be undone
                    _log.error("undo failed", step=name, error=repr(error))
                    failed.append((name, undo))
                    first = first or error
        self._steps = failed[::-1]
        return first
