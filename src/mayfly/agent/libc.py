"""Functions of the C library, by `_ctypes`: the C half of `ctypes`.

The Python half declares types and makes a callback when it is imported: a fifth of the agent's start.
"""

from __future__ import annotations

import _ctypes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["errno", "function", "unsigned_long"]

_RTLD_NOW = 2
_CDECL = 1
_USE_ERRNO = 8


class _Int(_ctypes._SimpleCData):  # type: ignore[type-arg]  # noqa: SLF001  public by the name `ctypes.c_int`'s base
    _type_ = "i"


class unsigned_long(_ctypes._SimpleCData):  # type: ignore[type-arg]  # noqa: N801, SLF001  as C calls it
    """An argument that is one, where a plain number would be passed as `int`."""

    _type_ = "L"


class _Function(_ctypes.CFuncPtr):
    _flags_ = _CDECL | _USE_ERRNO
    _restype_ = _Int


_library = _ctypes.dlopen(None, _RTLD_NOW)  # type: ignore[arg-type]  # None is the program itself


def function(name: str) -> Callable[..., int]:
    """The function of that name, which returns `int`. Takes numbers, bytes, None; `errno` tells why it failed."""
    return _Function(_ctypes.dlsym(_library, name))


def errno() -> int:
    """The error number that the last call left."""
    return _ctypes.get_errno()
