"""The values that travel between client, node and scan: frozen structs, decoded and range-checked by msgspec.

Units are in the names: `_s` seconds, `_ms` milliseconds, `_mib` mebibytes, `_bytes` bytes.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NewType

import msgspec

__all__ = [
    "CODE_MAX_BYTES",
    "Accepted",
    "ErrorInfo",
    "Event",
    "Execution",
    "ExecutionId",
    "ExecutionRequest",
    "Finding",
    "Finished",
    "HostInfo",
    "HostKind",
    "Language",
    "Limits",
    "Output",
    "SandboxLimits",
    "Severity",
    "Shape",
    "Stage",
    "StageDone",
    "Status",
    "Usage",
    "Verdict",
    "VerdictKind",
    "image_for",
]

ExecutionId = NewType("ExecutionId", str)

CODE_MAX_BYTES = 256 * 1024
"""The largest program that is taken, in bytes of UTF-8."""

Language = Literal["python", "bash"]
HostKind = Literal["kvm", "emulated", "fake"]
Severity = Literal["low", "medium", "high", "critical"]
VerdictKind = Literal["allow", "review", "deny", "unparseable"]
Status = Literal[
    "succeeded",  # exit code 0
    "failed",  # another exit code
    "signaled",  # ended by a signal that Mayfly did not send
    "timeout",  # wall-clock deadline
    "cpu_limit",  # CPU time used up
    "oom",  # memory used up
    "denied",  # refused by the scan; nothing was launched
    "agent_lost",  # the VM or its agent died under the program
    "error",  # Mayfly failed; see `error`
]


_Seconds = Annotated[float, msgspec.Meta(ge=0.1, le=3600)]
_MemMib = Annotated[int, msgspec.Meta(ge=64, le=16384)]
_Vcpus = Annotated[int, msgspec.Meta(ge=1, le=8)]
_Pids = Annotated[int, msgspec.Meta(ge=1, le=4096)]
_OutputBytes = Annotated[int, msgspec.Meta(ge=0, le=64 * 1024 * 1024)]
_ScratchMib = Annotated[int, msgspec.Meta(ge=0, le=16384)]
_IoMbps = Annotated[int, msgspec.Meta(ge=1, le=10_000)]
_IoOps = Annotated[int, msgspec.Meta(ge=100, le=1_000_000)]


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What one execution may use. Out-of-range values are refused, never clamped."""

    timeout_s: _Seconds = 30.0
    mem_mib: _MemMib = 256
    vcpus: _Vcpus = 1
    cpu_s: _Seconds | None = None
    pids: _Pids = 128
    output_bytes: _OutputBytes = 1024 * 1024
    """Kept of each of standard output and standard error; the rest is dropped and `truncated` set."""
    scratch_mib: _ScratchMib = 0
    """A disk of this size for what the program writes; 0: it writes to memory. Sizes below 16 MiB are refused."""
    io_mbps: _IoMbps = 400
    """MiB a second that each of its disks may move, after a first burst of as much."""
    io_ops: _IoOps = 50_000
    """Requests a second that each of its disks may make."""


class SandboxLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`Limits` of a sandbox to make. Of its machine's size, what is absent is the template's, or `Limits` default."""

    timeout_s: _Seconds = 30.0
    mem_mib: _MemMib | msgspec.UnsetType = msgspec.UNSET
    vcpus: _Vcpus | msgspec.UnsetType = msgspec.UNSET
    cpu_s: _Seconds | None = None
    pids: _Pids = 128
    output_bytes: _OutputBytes = 1024 * 1024
    scratch_mib: _ScratchMib | msgspec.UnsetType = msgspec.UNSET
    io_mbps: _IoMbps = 400
    io_ops: _IoOps = 50_000


def image_for(lang: str, asked: str | None = None) -> str:
    """The image that a program runs in: the one asked for, else its language's."""
    return asked or _IMAGES.get(lang, "python")


_IMAGES = {"javascript": "node", "typescript": "node"}


class ExecutionRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A program to run. `code` is UTF-8 text of at most `CODE_MAX_BYTES` bytes."""

    code: str
    lang: Language = "python"
    image: Annotated[str, msgspec.Meta(max_length=32, pattern=r"^[a-z0-9][a-z0-9-]*$")] | None = None
    """Image to run in; None is the language's own."""
    limits: Limits = Limits()
    policy: Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[a-z0-9][a-z0-9_-]*$")] = "default"
    args: Annotated[list[Annotated[str, msgspec.Meta(max_length=4096)]], msgspec.Meta(max_length=64)] = []
    env: Annotated[
        dict[
            Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")],
            Annotated[str, msgspec.Meta(max_length=8192)],
        ],
        msgspec.Meta(max_length=64),
    ] = {}
    filename: Annotated[str, msgspec.Meta(max_length=64, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")] | None = None
    """Name that tracebacks show; None gives `main.py` or `main.sh`."""
    approve: Annotated[list[Annotated[str, msgspec.Meta(max_length=128)]], msgspec.Meta(max_length=256)] = []
    """Findings that the caller takes responsibility for, as `RULE@LINE:COLUMN`, where the policy asks."""
    stdin: Annotated[str, msgspec.Meta(max_length=1024 * 1024)] | None = None
    """Standard input given with the request; None with `stdin_stream` false is an empty input."""
    stdin_stream: bool = False
    """True: standard input comes through `POST /v1/executions/{id}/stdin`; only for streamed executions."""


class Finding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing the scan saw. `line` and `column` count from 1 and 0 as Python's parser does."""

    rule: str
    severity: Severity
    message: str
    confidence: Literal["low", "medium", "high"] = "high"
    cwe: str | None = None
    line: int = 0
    column: int = 0
    capabilities: tuple[str, ...] = ()


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The scan's answer. `parse` is `ok` or the reason it could not be parsed; `versions` names scanner and policy."""

    verdict: VerdictKind
    findings: tuple[Finding, ...] = ()
    capabilities: tuple[str, ...] = ()
    parse: str = "ok"
    versions: dict[str, str] = {}
    ms: float = 0.0


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """What the machine was given, after everything the program shows no need of was taken away.

    `egress` is false for every machine today; `pids` is what the program may have at once.
    """

    pids: int
    mem_mib: int
    egress: bool = False
    scratch_disk: bool = False
    narrowed_by: tuple[str, ...] = ()
    """Capabilities whose absence narrowed it."""


class Stage(msgspec.Struct, frozen=True):
    """One named stage of an execution and how long it took, in milliseconds of the node's monotonic clock."""

    name: str
    ms: float


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What the program used, as the agent measured it; hostile input, bounded by the node."""

    wall_ms: float = 0.0
    cpu_ms: float = 0.0
    mem_peak_bytes: int = 0
    stdout_bytes: int = 0
    stderr_bytes: int = 0


class HostInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Where the program ran."""

    kind: HostKind
    firecracker: str
    kernel: str = ""
    image: str = ""
    warnings: tuple[str, ...] = ()


class ErrorInfo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An infrastructure failure as data; the fields of `mayfly.errors.MayflyError`."""

    code: str
    message: str
    phase: str = ""
    retryable: bool = False
    field: str | None = None
    hint: str | None = None
    sandbox_id: str | None = None


class Execution(msgspec.Struct, frozen=True, kw_only=True):
    """One program's run and its result.

    `exit_code` follows the shell: the program's own, 128+n for signal n, 124 on timeout and CPU limit, 125 when
    Mayfly or the agent failed, 126 when the scan denied it, 137 when memory ran out.
    """

    id: ExecutionId
    status: Status
    exit_code: int
    stdout: str = ""
    stderr: str = ""
    truncated: bool = False
    signal: str | None = None
    error: ErrorInfo | None = None
    scan: Verdict | None = None
    shape: Shape | None = None
    stages: tuple[Stage, ...] = ()
    usage: Usage = Usage()
    host: HostInfo | None = None
    lang: Language = "python"
    created_at: str = ""
    """RFC 3339, UTC."""

    @property
    def ok(self) -> bool:
        """True when the program ended by itself with exit code 0."""
        return self.status == "succeeded"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready types."""
        shape: dict[str, Any] = msgspec.to_builtins(self)
        return shape


class Accepted(msgspec.Struct, frozen=True, kw_only=True, tag="accepted", tag_field="event"):
    """First event of a stream: the id under which the execution is known."""

    id: ExecutionId


class StageDone(msgspec.Struct, frozen=True, kw_only=True, tag="stage", tag_field="event"):
    """A stage has finished."""

    name: str
    ms: float


class Output(msgspec.Struct, frozen=True, kw_only=True, tag="output", tag_field="event", omit_defaults=True):
    """Bytes that the program wrote, as they came: `text` where they are valid UTF-8, else `base64`."""

    stream: Literal["stdout", "stderr"]
    text: str | None = None
    base64: str | None = None


class Finished(msgspec.Struct, frozen=True, kw_only=True, tag="finished", tag_field="event"):
    """Last event of a stream: the whole result."""

    execution: Execution


Event = Accepted | StageDone | Output | Finished
"""What a streamed execution sends, one JSON object a line."""
