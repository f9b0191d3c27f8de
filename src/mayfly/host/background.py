"""Starting a long-lived process of our own that is to outlive the caller."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from mayfly.errors import NodeUnavailableError
from mayfly.host.sockets import listens

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["start_until_listening"]

_POLL_S = 0.02
_TAIL_BYTES = 2000


def start_until_listening(arguments: Sequence[str], *, socket: Path, log: Path, deadline_s: float) -> None:
    """Run `python ARGUMENTS…` in the background and return once it accepts connections on `socket`.

    NodeUnavailableError with the end of its log when it ends before that or misses the deadline.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            start_new_session=True,
        )
    deadline = time.monotonic() + deadline_s
    while not listens(socket):
        code = process.poll()
        if code is not None:
            raise NodeUnavailableError(f"the node ended at its start with {code}: {_tail(log)}")
        if time.monotonic() > deadline:
            process.terminate()
            process.wait(deadline_s)
            raise NodeUnavailableError(f"the node was not up within {deadline_s:g} s: {_tail(log)}")
        time.sleep(_POLL_S)
    process.returncode = 0  # it lives on; nobody here waits for it


def _tail(log: Path) -> str:
    with log.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _TAIL_BYTES))
        return file.read(_TAIL_BYTES).decode("utf-8", "replace").strip() or "it said nothing"
