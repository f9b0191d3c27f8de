"""Client for Firecracker's HTTP API on its Unix socket: one kept connection, bounded answers, a deadline a call."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Any, Self

import anyio
import anyio.lowlevel
import h11
import msgspec

from mayfly.errors import VmmApiError, VmmExitedError, VmmTimeoutError
from mayfly.host.sockets import short_path

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

__all__ = ["FirecrackerApi"]

_ANSWER_MAX_BYTES = 64 * 1024
_CALL_DEADLINE_S = 10.0
_READ_BYTES = 64 * 1024


class FirecrackerApi:
    """Calls of one VMM. Use `await FirecrackerApi.connect(path)`; calls are made one at a time."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_ANSWER_MAX_BYTES)

    @classmethod
    async def connect(cls, path: Path) -> FirecrackerApi:
        """Connect to the API socket. VmmExitedError when nobody listens."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            with short_path(path) as name:
                connection.connect(name)  # a Unix socket's listener is there at once or not at all
            await anyio.lowlevel.checkpoint()
        except OSError as error:
            connection.close()
            raise VmmExitedError(f"Firecracker's API socket does not answer: {error.strerror}") from error
        except BaseException:
            connection.close()
            raise
        return cls(connection)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. Idempotent."""
        self._socket.close()

    async def put(self, path: str, body: dict[str, Any]) -> None:
        """`PUT`; VmmApiError with Firecracker's `fault_message` when it refuses."""
        await self.call("PUT", path, body)

    async def patch(self, path: str, body: dict[str, Any]) -> None:
        """`PATCH`; as `put`."""
        await self.call("PATCH", path, body)

    async def get(self, path: str) -> Any:
        """`GET`, decoded from JSON."""
        return msgspec.json.decode(await self.call("GET", path, None))

    async def call(
        self, method: str, path: str, body: dict[str, Any] | None, *, deadline_s: float = _CALL_DEADLINE_S
    ) -> bytes:
        """One request. VmmApiError when refused, VmmExitedError at end of file, VmmTimeoutError past the deadline."""
        try:
            with anyio.fail_after(deadline_s):
                status, data = await self._exchange(method, path, body)
        except TimeoutError as error:
            raise VmmTimeoutError(f"Firecracker did not answer {method} {path} within {deadline_s:g} s") from error
        except (OSError, anyio.ClosedResourceError, anyio.EndOfStream, h11.RemoteProtocolError) as error:
            raise VmmExitedError(f"Firecracker ended while it was asked to {method} {path}") from error
        if status >= 300:
            raise VmmApiError(f"Firecracker refused {method} {path}: {_fault(data)}")
        return data

    async def _exchange(self, method: str, path: str, body: dict[str, Any] | None) -> tuple[int, bytes]:
        payload = b"" if body is None else msgspec.json.encode(body)
        headers = [
            ("Host", "localhost"),
            ("Accept", "application/json"),
            ("Content-Length", str(len(payload))),
        ]
        if payload:
            headers.append(("Content-Type", "application/json"))
        send = self._connection.send
        request = send(h11.Request(method=method, target=path, headers=headers)) or b""
        if payload:
            request += send(h11.Data(data=payload)) or b""
        await self._send(request + (send(h11.EndOfMessage()) or b""))
        return await self._receive()

    async def _send(self, data: bytes) -> None:
        while data:
            try:
                data = data[self._socket.send(data) :]
            except BlockingIOError:
                await anyio.wait_writable(self._socket)

    async def _read(self) -> bytes:
        """What has come; empty at the end."""
        while True:
            await anyio.wait_readable(self._socket)
            with contextlib.suppress(BlockingIOError):
                return self._socket.recv(_READ_BYTES)

    async def _receive(self) -> tuple[int, bytes]:
        status, data = 0, bytearray()
        while True:
            event = self._connection.next_event()
            if event is h11.NEED_DATA:
                self._connection.receive_data(await self._read())
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                data += event.data
                if len(data) > _ANSWER_MAX_BYTES:
                    raise h11.RemoteProtocolError("answer is too large")
            elif isinstance(event, h11.EndOfMessage):
                self._connection.start_next_cycle()
                return status, bytes(data)
            else:
                raise anyio.EndOfStream


def _fault(data: bytes) -> str:
    try:
        decoded = msgspec.json.decode(data)
        return str(decoded["fault_message"])[:2000]
    except (msgspec.DecodeError, KeyError, TypeError):
        return data[:2000].decode("utf-8", "replace")
