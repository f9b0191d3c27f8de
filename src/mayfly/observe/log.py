"""Structured logs: a line an event, readable on a terminal and JSON elsewhere."""

from __future__ import annotations

import sys
from typing import TextIO

import structlog

__all__ = ["configure_log"]


def configure_log(stream: TextIO | None = None) -> None:
    """Send Mayfly's log to `stream`, standard error by default; call it once, in a process of our own."""
    target = sys.stderr if stream is None else stream
    on_terminal = hasattr(target, "isatty") and target.isatty()
    renderer = structlog.dev.ConsoleRenderer() if on_terminal else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.dict_tracebacks,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(20),
        logger_factory=structlog.PrintLoggerFactory(file=target),
        cache_logger_on_first_use=False,
    )
