"""The last output of a process, by its place in all of it."""

from __future__ import annotations

__all__ = ["JobLog"]

_CHUNK_MAX_BYTES = 64 * 1024


class JobLog:
    """Pieces of two streams in the order in which they came. What is older than `keep_bytes` goes first."""

    def __init__(self, keep_bytes: int) -> None:
        self._keep_bytes = keep_bytes
        self._chunks: list[tuple[int, str, bytes]] = []  # offset of the first byte, stream, bytes
        self.start = 0
        """Where what is kept begins."""
        self.end = 0
        """Where the next output will stand."""

    def add(self, stream: str, data: bytes) -> None:
        """Adds a piece; small ones of one stream are put together."""
        if self._chunks:
            offset, before, old = self._chunks[-1]
            if before == stream and len(old) + len(data) <= _CHUNK_MAX_BYTES // 4:
                self._chunks[-1] = (offset, stream, old + data)
            else:
                self._chunks.append((self.end, stream, data))
        else:
            self._chunks.append((self.end, stream, data))
        self.end += len(data)

    def forget(self, needed_from: int) -> None:
        """Lets go of what is too old, but of nothing from `needed_from` on."""
        limit = min(self.end - self._keep_bytes, needed_from)
        drop = 0
        for offset, _, data in self._chunks:
            if offset + len(data) > limit:
                break
            drop += 1
        if drop:
            del self._chunks[:drop]
            self.start = self._chunks[0][0] if self._chunks else self.end

    def after(self, offset: int) -> tuple[int, str, bytes] | None:
        """The first piece at or after `offset`: where it begins, its stream, its bytes; None when there is none yet."""
        for first, stream, data in reversed(self._chunks):
            if first <= offset:
                skip = offset - first
                return (offset, stream, data[skip:]) if skip < len(data) else self._next(first)
        return self._chunks[0] if self._chunks else None

    def _next(self, first: int) -> tuple[int, str, bytes] | None:
        for chunk in self._chunks:
            if chunk[0] > first:
                return chunk
        return None
