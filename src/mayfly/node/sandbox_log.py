"""What was done in a sandbox and what its code printed: the newest 256 KiB, by offset."""

from __future__ import annotations

import time
from collections import deque
from typing import Literal

from mayfly.node.clock import rfc3339
from mayfly.sandbox_model import LogEntry

__all__ = ["SandboxLog"]

_KEPT_BYTES = 256 * 1024
_ENTRY_BYTES = 100
"""What an entry costs beside its text."""
_TEXT_MAX = 4096


class SandboxLog:
    """Entries, the oldest dropped when there are too many bytes of them."""

    def __init__(self) -> None:
        self._entries: deque[LogEntry] = deque()
        self._bytes = 0
        self.next = 0
        """Offset of the next entry."""

    def add(
        self,
        source: Literal["sandbox", "run", "command"],
        text: str,
        *,
        stream: Literal["", "stdout", "stderr"] = "",
        id: str = "",  # noqa: A002 - the field's name
    ) -> None:
        """Write down one thing; a long text is cut."""
        text = text if len(text) <= _TEXT_MAX else f"{text[:_TEXT_MAX]}…"
        self._entries.append(
            LogEntry(offset=self.next, at=rfc3339(time.time()), source=source, text=text, stream=stream, id=id)
        )
        self.next += 1
        self._bytes += len(text) + _ENTRY_BYTES
        while self._bytes > _KEPT_BYTES:
            self._bytes -= len(self._entries.popleft().text) + _ENTRY_BYTES

    def entries(self, offset: int) -> list[LogEntry]:
        """Those that are kept from `offset` on."""
        return [entry for entry in self._entries if entry.offset >= offset]
