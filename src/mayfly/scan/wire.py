"""What a node and its scan worker say to each other: four bytes of length (big endian), then JSON."""

from __future__ import annotations

import struct
from typing import Literal, TypeVar

import msgspec

from mayfly.errors import ProtocolError
from mayfly.model import Verdict  # noqa: TC001 - msgspec needs it at run time
from mayfly.scan.manifest import Manifest  # noqa: TC001 - same
from mayfly.scan.policy import Policy  # noqa: TC001 - same

__all__ = [
    "HEADER_BYTES",
    "MAX_REPLY_BYTES",
    "MAX_REQUEST_BYTES",
    "Reply",
    "Request",
    "body_length",
    "decode",
    "encode",
]

HEADER_BYTES = 4
MAX_REQUEST_BYTES = 8 * 1024 * 1024
MAX_REPLY_BYTES = 1024 * 1024
_HEADER = struct.Struct("!I")
_T = TypeVar("_T")


class Request(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One program to scan. `policy` and `manifest` are left out when they are those of the request before."""

    source: bytes
    lang: Literal["python", "bash", "javascript", "typescript"]
    policy: Policy | None = None
    manifest: Manifest | None = None
    file_name: str = ""
    no_manifest: bool = False


class Reply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The verdict; none in the first message, which says that the worker is ready."""

    verdict: Verdict | None = None


def encode(message: Request | Reply) -> bytes:
    """Header and body."""
    body = msgspec.json.encode(message)
    return _HEADER.pack(len(body)) + body


def body_length(header: bytes, limit: int) -> int:
    """The body's length in bytes. ProtocolError when it is over `limit`."""
    length: int = _HEADER.unpack(header)[0]
    if length > limit:
        raise ProtocolError(f"a message of {length} bytes; at most {limit} are taken", phase="scan")
    return length


def decode(body: bytes, kind: type[_T]) -> _T:
    """The message in a body. ProtocolError when it is not one."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.MsgspecError as error:
        raise ProtocolError(f"not a message of the scan worker: {error}", phase="scan") from error
