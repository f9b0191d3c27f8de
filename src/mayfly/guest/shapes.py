"""What travels between the host and the agent of a sandbox that keeps state, as the host sees it.

Everything in here that comes from a guest has been checked for shape and size, and is still only the guest's word.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from mayfly.model import Usage
from mayfly.sandbox_model import CodeError, CodeResult

__all__ = [
    "CHART_MIME",
    "HOME",
    "TABLE_MIME",
    "CodeEnd",
    "CodeEndStatus",
    "CodeEvent",
    "CodeOutput",
    "CodeRequest",
    "ProcessEnd",
    "ProcessEvent",
    "ProcessGap",
    "ProcessInfo",
    "ProcessOutput",
    "ProcessSpec",
    "Stream",
]

HOME = "/home/user"
"""Where relative paths begin in the guest."""
TABLE_MIME = "application/vnd.mayfly.data+json"
"""A table's values: `{columns: [text], index: [value], rows: [[value]], shape: [rows, columns], truncated: bool}`."""
CHART_MIME = "application/vnd.mayfly.chart+json"
"""What was read off a plot, see `protocol/guest-frames.md`."""

Stream = Literal["stdout", "stderr"]
CodeEndStatus = Literal["ok", "error", "timeout", "interrupted", "lost"]


class CodeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Code for a context. `nonce` (at most 128 characters) comes back with the end, and names the run meanwhile.

    `timeout_s` counts from when the context begins with it, and None never ends it. `output_bytes` bounds each of
    the two streams, `result_bytes` all results together, `item_bytes` one representation of one result.
    `figure_formats` are of `png`, `svg`, `jpeg`, `pdf`.
    """

    context_id: str
    code: str
    nonce: str
    timeout_s: float | None = None
    env: dict[str, str] = {}
    output_bytes: int = 1 << 20
    result_bytes: int = 16 << 20
    item_bytes: int = 1 << 20
    figure_formats: tuple[str, ...] = ("png",)


class CodeOutput(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes that the code, or a process or thread that it left behind, wrote."""

    stream: Stream
    data: bytes


CodeEvent = CodeOutput | CodeResult | CodeError
"""What comes while code runs; an error is the last before the end, or there is none."""


class CodeEnd(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ended.

    `error`: it raised (bash: the last exit code was not 0). `timeout` and `interrupted`: by SIGINT, or by force
    where that did not help. `lost`: the context's process ended, `reason` says how. `state_lost`: the context has
    begun anew, or will with its next run. `truncated`: output or results beyond the limits were dropped.
    `guest_ms` is what the interpreter itself took.
    """

    status: CodeEndStatus
    execution_count: int
    state_lost: bool = False
    reason: str = ""
    exit_code: int | None = None
    """Of a bash context's last command, or of a context that ended by itself."""
    truncated: bool = False
    usage: Usage = Usage()
    guest_ms: float = 0.0


class ProcessSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A process to start: `argv`, or `shell`, a line for bash; exactly one of the two.

    `pty` is (columns, rows); its output is all `stdout` and its input is open. `stdin` False is an empty input.
    `keep`: it goes on when the connection ends, and its last `buffer_bytes` of output can be had by attaching
    again. Without, it ends with the connection. `timeout_s` kills it; None does not.
    """

    argv: list[str] | None = None
    shell: str | None = None
    cwd: str = ""
    """Relative paths begin at home."""
    env: dict[str, str] = {}
    stdin: bool = False
    pty: tuple[int, int] | None = None
    keep: bool = False
    timeout_s: float | None = None
    pids: int = 1024
    buffer_bytes: int = 256 * 1024


class ProcessOutput(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes that the process wrote. `offset` is that of their first byte, counted over both streams."""

    stream: Stream
    data: bytes
    offset: int


class ProcessGap(msgspec.Struct, frozen=True, kw_only=True):
    """Output up to `offset` was no longer there; `missing_bytes` of it had not been sent."""

    offset: int
    missing_bytes: int


class ProcessEnd(msgspec.Struct, frozen=True, kw_only=True):
    """How a process ended. `exit_code` is set for `exit`, `signal` for `signal`."""

    reason: Literal["exit", "signal", "timeout", "oom"]
    exit_code: int | None = None
    signal: str | None = None
    usage: Usage = Usage()


ProcessEvent = ProcessOutput | ProcessGap | ProcessEnd
"""What a process link yields; `ProcessEnd` is the last."""


class ProcessInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A process that runs, or was kept and ended not long ago. `output_bytes` is where the next output begins."""

    pid: int
    command: str
    cwd: str
    running: bool
    pty: bool
    keep: bool
    started_at: float
    """Seconds since 1970, by the guest's clock."""
    output_bytes: int = 0
    end: ProcessEnd | None = None
