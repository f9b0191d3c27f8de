"""Times as they stand in answers."""

from __future__ import annotations

import time

__all__ = ["ms_since", "rfc3339"]


def ms_since(started: float) -> float:
    """Milliseconds since `started` of `time.perf_counter`."""
    return round((time.perf_counter() - started) * 1000, 3)


def rfc3339(seconds: float) -> str:
    """`2026-01-01T12:00:00.000Z` of seconds since 1970."""
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1000):03d}Z"
