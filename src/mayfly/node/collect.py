"""What a program printed: kept up to a limit, counted beyond it, and cut into events at character boundaries."""

from __future__ import annotations

import base64
import codecs
from typing import Literal

from mayfly.model import Output

__all__ = ["OutputCollector"]

_INCOMPLETE_TAIL_BYTES = 3


class OutputCollector:
    """One stream's bytes. At most `limit_bytes` are kept; `truncated` says that more came."""

    def __init__(self, stream: Literal["stdout", "stderr"], limit_bytes: int) -> None:
        self.stream = stream
        self.truncated = False
        self._limit = limit_bytes
        self._kept = bytearray()
        self._unsent = b""

    def add(self, data: bytes) -> Output | None:
        """Take bytes; returns the event to send for them, None when there is nothing to send yet."""
        room = self._limit - len(self._kept)
        if len(data) > room:
            self.truncated = True
            data = data[:room]
        if not data:
            return None
        self._kept += data
        whole, self._unsent = _split_at_character(self._unsent + data)
        return self._event(whole) if whole else None

    def flush(self) -> Output | None:
        """The event for what is left of an unfinished character."""
        left, self._unsent = self._unsent, b""
        return self._event(left) if left else None

    def text(self) -> str:
        """All that was kept, invalid UTF-8 replaced."""
        return self._kept.decode("utf-8", "replace")

    def _event(self, data: bytes) -> Output:
        try:
            return Output(stream=self.stream, text=data.decode())
        except UnicodeDecodeError:
            return Output(stream=self.stream, base64=base64.b64encode(data).decode("ascii"))


def _split_at_character(data: bytes) -> tuple[bytes, bytes]:
    """Split off the beginning of a character that has not come whole; invalid bytes are no such beginning."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(data[-_INCOMPLETE_TAIL_BYTES - 1 :])
    pending = decoder.getstate()[0]
    if not pending:
        return data, b""
    return data[: -len(pending)], pending
