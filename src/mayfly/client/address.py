"""Where a node is, and how a person writes that down."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from mayfly.errors import InvalidRequestError

__all__ = ["NodeAddress", "parse_address", "read_token"]

_TOKEN_MAX_BYTES = 4096
_EXPECTED = "node must be unix:PATH, http://HOST:PORT or https://HOST[:PORT]"


@dataclass(frozen=True, slots=True)
class NodeAddress:
    """A Unix socket (`unix_socket`), or `host` and `port`; `token` is sent as bearer and never shown."""

    unix_socket: Path | None = None
    host: str = ""
    port: int = 0
    tls: bool = False
    token: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        if self.unix_socket is not None:
            return f"unix:{self.unix_socket}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"

    @property
    def authority(self) -> str:
        """Value for the `Host` header."""
        return "localhost" if self.unix_socket is not None else str(self).partition("//")[2]


def parse_address(text: str, *, token: str | None = None) -> NodeAddress:
    """Read `unix:PATH`, a plain absolute path, `http://HOST:PORT` or `https://HOST[:PORT]`; InvalidRequestError."""
    if text.startswith(("unix:", "/")):
        path = text.removeprefix("unix:")
        if path.startswith("//"):  # unix:///path
            path = "/" + path.lstrip("/")
        if not path or "\0" in path:
            raise InvalidRequestError(f"{_EXPECTED}, not {text!r}", field="node")
        return NodeAddress(unix_socket=Path(os.path.abspath(path)), token=token)  # noqa: PTH100 - no links followed
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise InvalidRequestError(f"{_EXPECTED}, not {text!r}", field="node") from None
    tls = parts.scheme == "https"
    port = 443 if tls and port is None else port
    plain = parts.path in {"", "/"} and not parts.query and not parts.fragment and parts.username is None
    if parts.scheme not in {"http", "https"} or not host or not port or not plain:
        raise InvalidRequestError(f"{_EXPECTED}, not {text!r}", field="node")
    return NodeAddress(host=host, port=port, tls=tls, token=token)


def read_token(path: Path) -> str | None:
    """The token in a file, None where there is no such file; InvalidRequestError when it is unreadable or no token."""
    try:
        with path.open("rb") as stream:
            data = stream.read(_TOKEN_MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InvalidRequestError(f"cannot read the token file {path}: {error.strerror}", field="token") from None
    token = data.decode("ascii", "replace").strip()
    if not token or len(data) > _TOKEN_MAX_BYTES or not token.isprintable() or not token.isascii() or " " in token:
        raise InvalidRequestError(f"the token file {path} must hold one line of printable ASCII", field="token")
    return token
