"""`signal` and `socket` without their enum classes: the C modules that the public ones wrap.

The public modules build enums when imported, which doubles the agent's start (31 ms to 17 ms, times 17 on an
emulated CPU). What is used of them here is the same in both.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    import socket
    from typing import Any
else:
    import _signal as signal
    import _socket as socket

__all__ = ["accept", "signal", "signal_name", "socket"]

_ALIASES = {"SIGCLD", "SIGIOT", "SIGPOLL"}


def accept(listener: socket.socket) -> tuple[socket.socket, Any]:
    """A connection that waits, and its peer's address. Raises OSError."""
    fd, peer = listener._accept()  # type: ignore[attr-defined]  # noqa: SLF001  `accept` is in the Python half
    return socket.socket(fileno=fd), peer


def signal_name(number: int) -> str:
    """`SIGSEGV` for 11, and so on."""
    for name, value in vars(signal).items():
        if value == number and name.startswith("SIG") and name[3].isalpha() and name not in _ALIASES:
            return name
    return f"SIGRTMIN+{number - signal.SIGRTMIN}"
