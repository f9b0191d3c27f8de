"""The control frames of the host, checked field by field. Everything wrong is a `RequestError` naming the field."""

from __future__ import annotations

import binascii

from mayfly.agent.fields import RequestError, bad, environment, number, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["CallRequest", "ExecRequest", "GreetRequest", "RequestError"]

PROGRAM_MAX_BYTES = 1 << 20
ARGS_MAX_BYTES = 8 << 20
_NAME_MAX = 64


class ExecRequest:
    """One program to run: see EXEC in `protocol/guest-frames.md` for the fields."""

    __slots__ = (
        "args",
        "cpu_s",
        "env",
        "filename",
        "lang",
        "mem_bytes",
        "nonce",
        "output_bytes",
        "pids",
        "program_bytes",
        "stdin",
        "timeout_s",
    )

    def __init__(self, shape: dict[str, Any]) -> None:
        self.nonce = text(shape, "nonce", 128)
        self.lang = text(shape, "lang", 16)
        if self.lang not in {"python", "bash"}:
            raise bad("lang", "python or bash")
        self.filename = text(shape, "filename", _NAME_MAX)
        if not self.filename or "/" in self.filename or self.filename.startswith((".", "-")):
            raise bad("filename", "a plain file name")
        self.program_bytes = int(number(shape, "program_bytes", 0, PROGRAM_MAX_BYTES))
        self.args = self._args(shape)
        self.env = environment(shape)
        self.stdin = shape.get("stdin") is True
        limits = shape.get("limits")
        if not isinstance(limits, dict):
            raise bad("limits", "an object")
        self.timeout_s = float(number(limits, "timeout_s", 0, 86400))
        self.cpu_s = None if limits.get("cpu_s") is None else float(number(limits, "cpu_s", 0, 86400))
        self.pids = int(number(limits, "pids", 1, 1 << 20))
        mem = limits.get("mem_bytes")
        self.mem_bytes = None if mem is None else int(number(limits, "mem_bytes", 1 << 20, 1 << 50))
        self.output_bytes = int(number(limits, "output_bytes", 0, 1 << 40))

    @staticmethod
    def _args(shape: dict[str, Any]) -> list[str]:
        args = shape.get("args", [])
        if not isinstance(args, list) or not all(isinstance(arg, str) and "\0" not in arg for arg in args):
            raise bad("args", "a list of texts without NUL")
        return args


class CallRequest:
    """An operation of a sandbox that keeps state: see CALL in `protocol/guest-frames.md`."""

    __slots__ = ("args", "op", "program_bytes")

    def __init__(self, shape: dict[str, Any]) -> None:
        self.op = text(shape, "op", _NAME_MAX)
        self.program_bytes = int(number(shape, "args_bytes", 0, ARGS_MAX_BYTES)) if "args_bytes" in shape else 0
        args = shape.get("args", {})
        if not isinstance(args, dict):
            raise bad("args", "an object")
        self.args: dict[str, Any] = args


class GreetRequest:
    """What makes this clone differ from its twins: see GREET in `protocol/guest-frames.md`."""

    __slots__ = ("entropy", "hostname", "machine_id", "unix_ns")

    def __init__(self, shape: dict[str, Any]) -> None:
        try:
            self.entropy = binascii.a2b_base64(text(shape, "entropy", 1024), strict_mode=True)
        except ValueError:
            raise bad("entropy", "base64") from None
        if len(self.entropy) < 32:
            raise bad("entropy", "at least 32 bytes")
        self.unix_ns = int(number(shape, "unix_ns", 0, 2**63 - 1))
        self.hostname = text(shape, "hostname", 64)
        self.machine_id = text(shape, "machine_id", 32)
        if len(self.machine_id) != 32 or not all(digit in "0123456789abcdef" for digit in self.machine_id):
            raise bad("machine_id", "32 hexadecimal digits")
