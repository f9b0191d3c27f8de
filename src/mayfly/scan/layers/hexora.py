"""hexora (MIT): static analysis of harmful Python, by rules and a learned score, in compiled code."""

from __future__ import annotations

import fcntl
import os
from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

from mayfly.scan.layers.layer import LayerError, make_finding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mayfly.model import Finding, Severity
    from mayfly.scan.source import Program

__all__ = ["HexoraLayer"]

# Its time grows with the square of a program's length.
_MAX_BYTES = 64 * 1024
# What it is sure of it says for good reason; what it holds for possible is common in good programs.
_SEVERITY: dict[str, Severity] = {
    "very_high": "high",
    "high": "medium",
    "medium": "low",
    "low": "low",
    "very_low": "low",
}
_CONFIDENCE = {"very_high": "high", "high": "high", "medium": "medium"}


class HexoraLayer:
    """Asks hexora, which takes a path and not bytes: it reads from a pipe that holds the program."""

    name = "hexora"

    def __init__(self) -> None:
        try:
            hexora = import_module("hexora")
        except ImportError as error:
            raise LayerError("it is not installed: pip install 'mayfly[hexora]'") from error
        self.version = metadata.version("hexora")
        self._audit: Callable[[str], list[dict[str, Any]]] = hexora.audit_file

    def findings(self, program: Program, file_name: str) -> Iterator[Finding]:
        """Its findings in a Python program; other languages have none."""
        del file_name
        if program.lang != "python":
            return
        if len(program.data) > _MAX_BYTES:
            raise LayerError(f"it is asked about programs of at most {_MAX_BYTES // 1024} KiB")
        for result in self._ask(program.data):
            for item in result.get("items", ()):
                start = (item.get("location") or (0, 0))[0]
                confidence = str(item.get("confidence"))
                yield make_finding(
                    f"HEXORA-{item.get('rule')}",
                    _SEVERITY.get(confidence, "low"),
                    f"{item.get('description')} ({item.get('label')})",
                    data=program.data,
                    offset=int(start),
                    confidence=_CONFIDENCE.get(confidence, "low"),
                )

    def _ask(self, data: bytes) -> list[dict[str, Any]]:
        reading, writing = os.pipe()
        try:
            try:
                # Room for the whole program, so that nobody has to write while it reads.
                fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, max(len(data), 4096))
                os.set_blocking(writing, False)
                if os.write(writing, data) < len(data):
                    raise LayerError("the pipe to it is too small for this program")
            finally:
                os.close(writing)
            return self._audit(f"/proc/self/fd/{reading}")
        finally:
            os.close(reading)
