"""The guest protocol's frames, as a codec without I/O. Used on both sides; standard library only.

A frame is an 8-byte header (`type` u8, three zero bytes, `length` u32 big endian) and `length` bytes of
payload. `protocol/guest-frames.md` describes what each type means. Whatever arrives is hostile: the header is
judged before a byte of payload is kept, and the decoder never keeps more than one header and one capped payload.

This module starts inside the guest, on a CPU that may be emulated, so it imports little: no `enum`, no
`typing`.
"""

from __future__ import annotations

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, NoReturn

__all__ = [
    "AGENT_PORT",
    "DATA_TYPES",
    "FROM_GUEST",
    "FROM_HOST",
    "HEADER_BYTES",
    "HOST_CID",
    "JSON_MAX_DEPTH",
    "PAYLOAD_MAX_BYTES",
    "PROTOCOL_VERSION",
    "Frame",
    "FrameDecoder",
    "FrameError",
    "FrameType",
    "encode",
    "to_json",
]

PROTOCOL_VERSION = 2
AGENT_PORT = 5000
"""The vsock port the agent listens on."""
HOST_CID = 2
"""The vsock context id of the host; the agent takes connections from nobody else."""
HEADER_BYTES = 8
PAYLOAD_MAX_BYTES = 64 * 1024
"""The longest payload of any frame, control and data alike."""
JSON_MAX_DEPTH = 32
_NUMBER_MAX_CHARS = 24  # -9223372036854775808 has 20; repr of a float at most 24
_HEADER = struct.Struct("!B3sI")
_JSON_SPACE = " \t\n\r"


class FrameType:
    """The numbers of the frame types; below 0x80 the host sends, from 0x80 on the guest does."""

    PING = 0x01
    GREET = 0x02
    EXEC = 0x03
    PROGRAM = 0x04
    STDIN = 0x05
    SIGNAL = 0x06
    CALL = 0x07
    RESIZE = 0x08
    PIECE = 0x09
    PONG = 0x81
    GREETED = 0x82
    STARTED = 0x83
    STDOUT = 0x84
    STDERR = 0x85
    EXIT = 0x86
    ERROR = 0x87
    ANSWER = 0x88
    PART = 0x89
    ITEM = 0x8A
    DATA = 0x8B
    GAP = 0x8C
    END = 0x8D


_NAMES = {value: name for name, value in vars(FrameType).items() if isinstance(value, int)}

FROM_HOST = frozenset(number for number in _NAMES if number < 0x80)
FROM_GUEST = frozenset(number for number in _NAMES if number >= 0x80)
DATA_TYPES = frozenset(
    {
        FrameType.PROGRAM,
        FrameType.STDIN,
        FrameType.PIECE,
        FrameType.STDOUT,
        FrameType.STDERR,
        FrameType.DATA,
    }
)
"""Types whose payload is raw bytes; every other payload is one JSON object in UTF-8."""
_MAY_BE_EMPTY = frozenset({FrameType.STDIN, FrameType.PIECE, FrameType.DATA})


class FrameError(ValueError):
    """Bytes that are no frame of the protocol, or a value that cannot become one."""


class Frame:
    """One frame: `type` (see `FrameType`) and `payload` bytes."""

    __slots__ = ("payload", "type")

    def __init__(self, frame_type: int, payload: bytes) -> None:
        self.type = frame_type
        self.payload = payload

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Frame):
            return NotImplemented
        return (self.type, self.payload) == (other.type, other.payload)

    def __hash__(self) -> int:
        return hash((self.type, self.payload))

    def __repr__(self) -> str:
        shown = self.payload if len(self.payload) <= 64 else self.payload[:64] + b"..."
        return f"Frame({_name(self.type)}, {shown!r})"

    def json(self) -> dict[str, Any]:
        """The payload of a control frame, decoded.

        Raises FrameError when it is no JSON object in UTF-8, is nested deeper than `JSON_MAX_DEPTH`, or holds
        NaN, an infinity, or an integer that does not fit 64 bits.
        """
        if self.type in DATA_TYPES:
            raise FrameError(f"{_name(self.type)} carries raw bytes, not JSON")
        try:
            value = _from_json(self.payload.decode("utf-8"))
        except FrameError:
            raise
        except RecursionError:
            raise FrameError(f"{_name(self.type)}: JSON nested deeper than {JSON_MAX_DEPTH}") from None
        except ValueError as error:
            raise FrameError(f"{_name(self.type)}: no JSON in UTF-8: {error}") from None
        if not isinstance(value, dict):
            raise FrameError(f"{_name(self.type)}: expected a JSON object, got {type(value).__name__}")
        # So few brackets cannot nest too deep; this spares nearly every frame the walk.
        if self.payload.count(b"{") + self.payload.count(b"[") > JSON_MAX_DEPTH:
            _check_depth(value, self.type)
        return value


class FrameDecoder:
    """Turns a stream of bytes, however it is cut, into frames.

    `allowed` are the types that may arrive. After an error the stream has no known position any more, so
    every further `feed` raises the same error.
    """

    def __init__(self, allowed: frozenset[int]) -> None:
        self._allowed = allowed
        self._buffer = bytearray()
        self._error: FrameError | None = None

    @property
    def buffered(self) -> int:
        """Bytes of an unfinished frame; not 0 when the stream ends means that it was cut short."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that `data` completes, in order. Raises FrameError at the first bad header."""
        if self._error is not None:
            raise self._error
        frames: list[Frame] = []
        view = memoryview(data)
        try:
            while True:
                used, frame = self._step(view)
                view = view[used:]
                if frame is None:
                    return frames
                frames.append(frame)
        except FrameError as error:
            self._error = error
            self._buffer.clear()
            raise

    def _step(self, view: memoryview) -> tuple[int, Frame | None]:
        """Takes bytes for the frame at hand: how many were taken, and the frame when it is complete."""
        buffer = self._buffer
        used = min(HEADER_BYTES - len(buffer), len(view)) if len(buffer) < HEADER_BYTES else 0
        buffer += view[:used]
        if len(buffer) < HEADER_BYTES:
            return used, None
        frame_type, length = self._judge(buffer)
        more = min(HEADER_BYTES + length - len(buffer), len(view) - used)
        buffer += view[used : used + more]
        used += more
        if len(buffer) < HEADER_BYTES + length:
            return used, None
        frame = Frame(frame_type, bytes(memoryview(buffer)[HEADER_BYTES:]))
        buffer.clear()
        return used, frame

    def _judge(self, buffer: bytearray) -> tuple[int, int]:
        frame_type, zeros, length = _HEADER.unpack_from(buffer)
        if frame_type not in self._allowed:
            raise FrameError(f"type {_name(frame_type)} is not allowed here")
        if zeros != b"\0\0\0":
            raise FrameError("bytes 1 to 3 of the header are not zero")
        _check_length(frame_type, length)
        return frame_type, length


def encode(frame_type: int, payload: bytes | Mapping[str, object]) -> bytes:
    """One frame as bytes; a mapping becomes compact JSON. Raises FrameError when the payload breaks a cap."""
    if frame_type not in _NAMES:
        raise FrameError(f"type {_name(frame_type)} does not exist")
    if isinstance(payload, bytes):
        body = payload
    elif frame_type in DATA_TYPES:
        raise FrameError(f"{_name(frame_type)} carries raw bytes, not JSON")
    else:
        try:
            body = to_json(payload).encode("utf-8")
        except (TypeError, ValueError, RecursionError) as error:
            raise FrameError(f"{_name(frame_type)}: cannot become JSON: {error}") from None
    _check_length(frame_type, len(body))
    return _HEADER.pack(frame_type, b"\0\0\0", len(body)) + body


def _check_length(frame_type: int, length: int) -> None:
    if length > PAYLOAD_MAX_BYTES:
        raise FrameError(f"{_name(frame_type)}: payload of {length} bytes, at most {PAYLOAD_MAX_BYTES} allowed")
    least = (0 if frame_type in _MAY_BE_EMPTY else 1) if frame_type in DATA_TYPES else 2
    if length < least:
        raise FrameError(f"{_name(frame_type)}: payload of {length} bytes, at least {least} needed")


def _name(frame_type: int) -> str:
    return _NAMES.get(frame_type) or f"0x{frame_type:02x}"


def _bounded_int(text: str) -> int:
    if len(text) > _NUMBER_MAX_CHARS:
        raise FrameError("an integer does not fit 64 bits")
    value = int(text)
    if not -(2**63) <= value < 2**63:
        raise FrameError("an integer does not fit 64 bits")
    return value


def _bounded_float(text: str) -> float:
    value = float(text) if len(text) <= 2 * _NUMBER_MAX_CHARS else float("inf")
    if value in {float("inf"), float("-inf")}:
        raise FrameError("a number is out of range")
    return value


def _no_json(value: object) -> NoReturn:
    raise TypeError(f"{type(value).__name__} is no JSON")


def _refuse_constant(text: str) -> NoReturn:
    raise FrameError(f"{text} is not allowed")


class _Rules:
    """What the C scanner asks of its context."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_int = staticmethod(_bounded_int)
    parse_float = staticmethod(_bounded_float)
    parse_constant = staticmethod(_refuse_constant)


try:
    # The C halves of `json`, which itself costs 9 ms to import: it brings `re` and `enum`.
    from _json import encode_basestring_ascii, make_encoder, make_scanner

    _scan = make_scanner(_Rules())  # type: ignore[arg-type]
    _write = make_encoder(None, _no_json, encode_basestring_ascii, None, ":", ",", False, False, False)
except (ImportError, TypeError):  # an interpreter that has them otherwise
    _scan = _write = None  # type: ignore[assignment]


def _from_json(text: str) -> object:
    if _scan is not None:
        text = text.strip(_JSON_SPACE)
        try:
            value, end = _scan(text, 0)
        except (StopIteration, SystemError, ValueError) as error:
            if isinstance(error, FrameError):
                raise
        else:
            if end == len(text):
                return value
    import json  # it says best what is wrong, and the C half alone cannot say it at all

    rules = _Rules
    return json.loads(
        text, parse_int=rules.parse_int, parse_float=rules.parse_float, parse_constant=rules.parse_constant
    )


def to_json(value: Mapping[str, object]) -> str:
    """Compact JSON in ASCII. Raises TypeError, ValueError or RecursionError for what is none."""
    if _write is None:
        import json

        return json.dumps(value, separators=(",", ":"), allow_nan=False)
    return "".join(_write(value, 0))


def _check_depth(value: object, frame_type: int) -> None:
    level = [value]
    for _ in range(JSON_MAX_DEPTH):
        below: list[object] = []
        for item in level:
            if isinstance(item, dict):
                below.extend(item.values())
            elif isinstance(item, list):
                below.extend(item)
        if not below:
            return
        level = below
    if any(isinstance(item, (dict, list)) for item in level):
        raise FrameError(f"{_name(frame_type)}: JSON nested deeper than {JSON_MAX_DEPTH}")
