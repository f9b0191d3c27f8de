"""Output as text for callbacks: bytes that a stream cut anywhere, put together to characters again."""

from __future__ import annotations

import codecs
import inspect
from base64 import b64decode
from typing import TYPE_CHECKING, Literal, Protocol

from mayfly.errors import NodeError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    OnText = Callable[[str], object]

__all__ = ["TextRelay", "Written", "written_bytes"]


class Written(Protocol):
    """An event of output, of whichever stream of events."""

    @property
    def stream(self) -> Literal["stdout", "stderr"]:
        """Which of the two."""

    @property
    def text(self) -> str | None:
        """What was written, where it is UTF-8."""

    @property
    def base64(self) -> str | None:
        """What was written, where it is not."""


def written_bytes(event: Written) -> bytes:
    """The bytes that were written; NodeError when the node encoded them wrongly."""
    if event.text is not None:
        return event.text.encode()
    try:
        return b64decode(event.base64 or "", validate=True)
    except ValueError:
        raise NodeError("the node sent output that is not base64", retryable=False) from None


class TextRelay:
    """Passes each stream's text on to its callback, awaiting it where that is a coroutine function."""

    def __init__(self, callbacks: Mapping[str, OnText | None]) -> None:
        self._callbacks = callbacks
        decoder = codecs.getincrementaldecoder("utf-8")
        self._decoders = {name: decoder("replace") for name in callbacks}

    async def take(self, event: Written) -> None:
        """What of the event makes whole characters."""
        if self._callbacks[event.stream] is not None:
            await self._pass_on(event.stream, self._decoders[event.stream].decode(written_bytes(event)))

    async def finish(self) -> None:
        """Nothing more will come: what is left of a character is replaced."""
        for name, decoder in self._decoders.items():
            await self._pass_on(name, decoder.decode(b"", final=True))

    async def _pass_on(self, name: str, text: str) -> None:
        callback = self._callbacks[name]
        if callback is None or not text:
            return
        outcome = callback(text)
        if inspect.isawaitable(outcome):
            await outcome
