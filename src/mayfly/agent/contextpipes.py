"""The output of an interpreter that keeps state: passed on to the run that is on, or kept for the next."""

from __future__ import annotations

import os

from mayfly.agent.loop import READ
from mayfly.guest.frames import PAYLOAD_MAX_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mayfly.agent.contexts import Context
    from mayfly.agent.loop import Loop, Timer

__all__ = ["ContextOutput"]

_GATHER_S = 0.001  # `print` writes a line in two pieces
_GATHER_BELOW_BYTES = 4096
_KEPT_MAX_BYTES = PAYLOAD_MAX_BYTES


class ContextOutput:
    """One of the context's two output streams, for as long as its process lives. Owns `fd`."""

    def __init__(self, context: Context, loop: Loop, stream: str, fd: int) -> None:
        self._context = context
        self._loop = loop
        self._stream = stream
        self._fd = fd
        self._kept = b""  # a piece without the end of its line, or what came while nothing ran
        self._gather: Timer | None = None
        self._watching = False

    def resume(self) -> None:
        """Listens, again."""
        if self._fd >= 0 and not self._watching:
            self._watching = True
            self._loop.watch(self._fd, READ, self._ready)

    def pause(self) -> None:
        """Takes nothing until `resume`; the program waits when the pipe is full."""
        if self._fd >= 0 and self._watching:
            self._watching = False
            self._loop.forget(self._fd)

    def _ready(self, _: int) -> None:
        if self._context.congested:
            self._context.pause()
            return
        self._read()

    def _read(self) -> bool:
        """Takes one piece; False when there is none."""
        try:
            data = os.read(self._fd, PAYLOAD_MAX_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self.close()
            return False
        if self._context.current is None:
            self._kept = (self._kept + data)[-_KEPT_MAX_BYTES:]
            return True
        self._kept += data
        if len(self._kept) >= _GATHER_BELOW_BYTES or self._kept.endswith(b"\n"):
            self.flush()
        elif self._gather is None:
            self._gather = self._loop.call_in(_GATHER_S, self.flush)
        return True

    def flush(self) -> None:
        """Passes on what was kept."""
        if self._gather is not None:
            self._gather.cancel()
            self._gather = None
        run = self._context.current
        while run is not None and self._kept:
            piece, self._kept = self._kept[:PAYLOAD_MAX_BYTES], self._kept[PAYLOAD_MAX_BYTES:]
            run.output(self._stream, piece)

    def forget(self) -> None:
        """Drops what has come so far: an interpreter's words about its own start."""
        while self._fd >= 0 and self._read():
            pass
        self._kept = b""

    def drain(self, *, most_bytes: int = 16 * PAYLOAD_MAX_BYTES) -> None:
        """Takes what is in the pipe now, whether or not the host keeps up; bounded, for a child may write on and on."""
        left = most_bytes
        while self._fd >= 0 and left > 0 and self._read():
            left -= PAYLOAD_MAX_BYTES
        self.flush()

    def kept_text(self) -> str:
        """The end of what nobody has taken, as one line."""
        return self._kept[-500:].decode("utf-8", "replace").strip().replace("\n", " / ")

    def close(self) -> None:
        """Gives the descriptor back. Idempotent."""
        if self._fd >= 0:
            self._loop.forget(self._fd)
            os.close(self._fd)
            self._fd = -1
