"""How a command fails: one sentence on standard error, and the exit code that goes with it."""

from __future__ import annotations

import contextlib
import errno
import os
import sys

import click

__all__ = ["BROKEN_PIPE", "FAILED", "INTERRUPTED", "USAGE", "exit_code_of", "paint", "safe", "show_failure"]

USAGE = 2
FAILED = 125
INTERRUPTED = 130
BROKEN_PIPE = 141
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def exit_code_of(error: Exception) -> int | None:
    """2 for what the user can mend in the command, 125 for what failed in Mayfly, None for what is unexpected."""
    if isinstance(error, click.ClickException):
        return error.exit_code
    if isinstance(error, BrokenPipeError):
        return BROKEN_PIPE
    if isinstance(error, OSError) and error.errno in _FULL:
        return FAILED
    from mayfly.errors import DeniedError, InvalidRequestError, MayflyError

    if isinstance(error, InvalidRequestError):
        return USAGE
    if isinstance(error, DeniedError):
        return 126
    return FAILED if isinstance(error, MayflyError) else None


def show_failure(error: Exception) -> None:
    """Say it on standard error; a closed pipe is not worth a word."""
    if isinstance(error, OSError):
        # What is still buffered has nowhere to go.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return
    text = error.format_message() if isinstance(error, click.ClickException) else _said(error)
    with contextlib.suppress(BrokenPipeError):
        if isinstance(error, click.UsageError) and error.ctx is not None:
            click.echo(error.ctx.get_usage(), err=True)
        click.echo(f"{paint('mayfly:', fg='red')} {safe(text)}", err=True)


def _said(error: Exception) -> str:
    if not isinstance(error, OSError):
        return str(error)
    return f"cannot write {error.filename or 'the output'}: {error.strerror}"


def paint(text: str, *, fg: str | None = None, bold: bool = False, err: bool = True) -> str:
    """`text` in colour where the stream is a terminal and NO_COLOR is not set."""
    stream = sys.stderr if err else sys.stdout
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty():
        return text
    return click.style(text, fg=fg, bold=bold or None)


def safe(text: str) -> str:
    """`text` with everything that could steer a terminal written out, newlines kept."""
    return "".join(char if char.isprintable() or char == "\n" else ascii(char)[1:-1] for char in text)
