"""The values that travel about sandboxes which keep state: requests, answers, and the events of their streams.

Units are in the names, as in `mayfly.model`. Requests refuse unknown fields and values out of range; answers may gain
fields. Those about files are made in `mayfly.file_model` and exported here too.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NewType

import msgspec

from mayfly.file_model import (
    FileEvent,
    FileInfo,
    FileKind,
    FilePath,
    LogEntry,
    MakeDirectory,
    Metrics,
    RenameFile,
)
from mayfly.model import ErrorInfo, HostInfo, Limits, SandboxLimits, Stage, Usage, Verdict

__all__ = [
    "FOREVER_S",
    "ChangeTimeout",
    "CodeAccepted",
    "CodeError",
    "CodeErrorEvent",
    "CodeEvent",
    "CodeExecution",
    "CodeFinished",
    "CodeLanguage",
    "CodeOutput",
    "CodeResult",
    "CodeResultEvent",
    "CodeStage",
    "CodeStatus",
    "CommandAccepted",
    "CommandEnd",
    "CommandEnded",
    "CommandEvent",
    "CommandGap",
    "CommandInfo",
    "CommandOutput",
    "CommandResult",
    "ContextId",
    "ContextInfo",
    "CreateContext",
    "CreateSandbox",
    "Cut",
    "Envs",
    "FileEvent",
    "FileInfo",
    "FileKind",
    "LogEntry",
    "MakeDirectory",
    "Metrics",
    "RenameFile",
    "ResizeTerminal",
    "RunCode",
    "RunId",
    "SandboxId",
    "SandboxInfo",
    "SandboxState",
    "SignalCommand",
    "StartCommand",
    "TerminalSize",
]

SandboxId = NewType("SandboxId", str)
ContextId = NewType("ContextId", str)
RunId = NewType("RunId", str)

FOREVER_S = 7 * 24 * 3600
"""The longest that a sandbox may be asked to live, in seconds."""

CodeLanguage = Literal["python", "javascript", "bash"]
SandboxState = Literal["running", "ended", "lost"]
CodeStatus = Literal[
    "succeeded",  # it ran to its end
    "failed",  # it raised, or the last command's exit code is not 0
    "timeout",  # it was interrupted after its time; see `state_lost`
    "interrupted",  # somebody interrupted it
    "context_lost",  # the context's process ended under it; the context begins anew
    "denied",  # refused by the scan; nothing was run
    "error",  # Mayfly or the microVM failed; see `failure`
]

Envs = Annotated[
    dict[
        Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")],
        Annotated[str, msgspec.Meta(max_length=8192)],
    ],
    msgspec.Meta(max_length=64),
]
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[a-z0-9][a-z0-9_-]*$")]
_LifeS = Annotated[float, msgspec.Meta(ge=1, le=FOREVER_S)]
_RunS = Annotated[float, msgspec.Meta(ge=0.1, le=24 * 3600)]
_Approvals = Annotated[list[Annotated[str, msgspec.Meta(max_length=128)]], msgspec.Meta(max_length=256)]


class CreateSandbox(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A sandbox to make. `limits` are its machine's; `limits.timeout_s` is what one run gets where it does not say."""

    image: _Name | None = None
    template: _Name | None = None
    """The beginning of a template's key, which stands for image and size; without one they are the usual ones."""
    lang: CodeLanguage = "python"
    """Language of the context `default`."""
    timeout_s: _LifeS = 3600.0
    """The sandbox ends this long after it was made, whatever it does."""
    idle_timeout_s: _LifeS = 900.0
    """It ends when nobody asked anything of it for this long; a request in progress, streams included, is asking."""
    limits: SandboxLimits = SandboxLimits()
    envs: Envs = {}
    metadata: Annotated[
        dict[
            Annotated[str, msgspec.Meta(min_length=1, max_length=64)],
            Annotated[str, msgspec.Meta(max_length=1024)],
        ],
        msgspec.Meta(max_length=32),
    ] = {}
    policy: _Name = "default"
    """The policy that the scan decides by, for code and shell commands alike."""


class SandboxInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A sandbox. `reason` says why it is not `running`; times are RFC 3339, UTC."""

    id: SandboxId
    state: SandboxState
    image: str
    lang: CodeLanguage
    created_at: str
    expires_at: str
    timeout_s: float
    idle_timeout_s: float
    limits: Limits
    metadata: dict[str, str]
    policy: str
    template: str | None = None
    reason: str | None = None
    ended_at: str | None = None
    stages: tuple[Stage, ...] = ()
    """What making it took: launch, greet, context."""
    host: HostInfo | None = None


class ChangeTimeout(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """New times for a sandbox; None leaves one as it is. `timeout_s` counts from now."""

    timeout_s: _LifeS | None = None
    idle_timeout_s: _LifeS | None = None


class CreateContext(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A further interpreter in the sandbox; `cwd` None is the user's home directory."""

    lang: CodeLanguage = "python"
    cwd: FilePath | None = None
    envs: Envs = {}


class ContextInfo(msgspec.Struct, frozen=True, kw_only=True):
    """An interpreter that keeps state. `execution_count` is the number of the last run."""

    id: ContextId
    lang: CodeLanguage
    cwd: str
    busy: bool = False
    execution_count: int = 0


class RunCode(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Code for a context. `context` None takes the default one of `language`, which is made where there is none."""

    code: str
    context: Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_-]+$")] | None = None
    language: CodeLanguage | None = None
    """None is the context's language, or the sandbox's; a context of another language is refused."""
    envs: Envs = {}
    """Set for this run only."""
    timeout_s: _RunS | None = None
    """None takes the sandbox's `limits.timeout_s`."""
    approve: _Approvals = []


class Cut(msgspec.Struct, frozen=True, kw_only=True):
    """A representation that was left out of a result for its size."""

    mime: str
    bytes: int


class CodeResult(msgspec.Struct, frozen=True, kw_only=True):
    """One result: the same thing in one or more representations.

    `data` maps MIME types to text, to base64 of what is no text, or to a value where the type is JSON. The type
    `application/vnd.mayfly.chart+json` holds what was read off a plot.
    """

    data: dict[str, Any]
    is_main_result: bool = False
    metadata: dict[str, Any] = {}
    truncated: tuple[Cut, ...] = ()


class CodeError(msgspec.Struct, frozen=True, kw_only=True):
    """What the code raised. `traceback` is as its user knows it, without colours."""

    name: str
    value: str
    traceback: str = ""


class CodeExecution(msgspec.Struct, frozen=True, kw_only=True):
    """One run of code in a context and its result."""

    id: RunId
    sandbox_id: SandboxId
    context: ContextId
    language: CodeLanguage
    status: CodeStatus
    stdout: str = ""
    stderr: str = ""
    results: tuple[CodeResult, ...] = ()
    error: CodeError | None = None
    execution_count: int | None = None
    state_lost: bool = False
    """The context lost its variables and begins anew."""
    truncated: bool = False
    """Output or results beyond their limits were dropped."""
    failure: ErrorInfo | None = None
    """What of Mayfly failed, with status `error`; with `denied`, what somebody has to approve first."""
    scan: Verdict | None = None
    stages: tuple[Stage, ...] = ()
    usage: Usage = Usage()
    created_at: str = ""


class CodeAccepted(msgspec.Struct, frozen=True, kw_only=True, tag="accepted", tag_field="event"):
    """First event of a run."""

    offset: int
    id: RunId
    context: ContextId


class CodeStage(msgspec.Struct, frozen=True, kw_only=True, tag="stage", tag_field="event"):
    """A stage has finished."""

    offset: int
    name: str
    ms: float


class CodeOutput(msgspec.Struct, frozen=True, kw_only=True, tag="output", tag_field="event", omit_defaults=True):
    """Bytes that were written: `text` where they are valid UTF-8, else `base64`."""

    offset: int
    stream: Literal["stdout", "stderr"]
    text: str | None = None
    base64: str | None = None


class CodeResultEvent(msgspec.Struct, frozen=True, kw_only=True, tag="result", tag_field="event"):
    """Something was displayed, or is the value of the last expression."""

    offset: int
    result: CodeResult


class CodeErrorEvent(msgspec.Struct, frozen=True, kw_only=True, tag="error", tag_field="event"):
    """The code raised."""

    offset: int
    error: CodeError


class CodeFinished(msgspec.Struct, frozen=True, kw_only=True, tag="finished", tag_field="event"):
    """Last event of a run: all of it."""

    offset: int
    execution: CodeExecution


CodeEvent = CodeAccepted | CodeStage | CodeOutput | CodeResultEvent | CodeErrorEvent | CodeFinished
"""What a streamed run sends, one JSON object a line, `offset` counting from 0."""


class TerminalSize(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A terminal's size in characters."""

    cols: Annotated[int, msgspec.Meta(ge=1, le=2000)] = 80
    rows: Annotated[int, msgspec.Meta(ge=1, le=2000)] = 24


class StartCommand(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A process to start: a line for bash, or a list of arguments; exactly one of the two."""

    cmd: Annotated[str, msgspec.Meta(min_length=1, max_length=64 * 1024)] | None = None
    args: (
        Annotated[list[Annotated[str, msgspec.Meta(max_length=32 * 1024)]], msgspec.Meta(min_length=1, max_length=256)]
        | None
    ) = None
    cwd: FilePath | None = None
    envs: Envs = {}
    timeout_s: _RunS | None = None
    """It is killed after this long; None lets it run until the sandbox ends."""
    stdin: bool = False
    """Whether it gets input by `POST …/stdin` or a socket; else its input is empty."""
    pty: TerminalSize | None = None
    """A terminal for it; all output is `stdout` then, and input is always taken."""
    background: bool = False
    """Answer as soon as it runs."""
    approve: _Approvals = []


class CommandInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A command, running or ended not long ago."""

    pid: int
    command: str
    cwd: str = ""
    running: bool = True
    pty: bool = False
    started_at: str = ""
    exit_code: int | None = None
    signal: str | None = None
    output_bytes: int = 0
    """Written so far; the offset at which the next output will stand."""


class CommandEnd(msgspec.Struct, frozen=True, kw_only=True):
    """How it ended. `exit_code`: its own, 128+n for signal n, 124 out of time, 125 failure, 126 refused, 137 oom."""

    status: Literal["succeeded", "failed", "signaled", "timeout", "oom", "denied", "error"]
    exit_code: int
    signal: str | None = None
    failure: ErrorInfo | None = None
    """What of Mayfly failed, with status `error`; with `denied`, what somebody has to approve first."""
    scan: Verdict | None = None
    usage: Usage = Usage()


class CommandResult(CommandEnd, frozen=True, kw_only=True):
    """A command that was waited for. `pid` is None where none was started."""

    pid: int | None = None
    stdout: str = ""
    stderr: str = ""
    truncated: bool = False


class CommandAccepted(msgspec.Struct, frozen=True, kw_only=True, tag="accepted", tag_field="event"):
    """First event: the process runs. `offset` is where the output that follows begins."""

    offset: int
    pid: int


class CommandOutput(msgspec.Struct, frozen=True, kw_only=True, tag="output", tag_field="event", omit_defaults=True):
    """Bytes that were written; `offset` is the place after them, from which to go on."""

    offset: int
    stream: Literal["stdout", "stderr"]
    text: str | None = None
    base64: str | None = None


class CommandGap(msgspec.Struct, frozen=True, kw_only=True, tag="gap", tag_field="event"):
    """Output up to `offset` is no longer kept: `bytes` of what was asked for are missing."""

    offset: int
    bytes: int


class CommandEnded(msgspec.Struct, frozen=True, kw_only=True, tag="ended", tag_field="event"):
    """Last event; the only one where nothing was started."""

    offset: int
    end: CommandEnd


CommandEvent = CommandAccepted | CommandOutput | CommandGap | CommandEnded
"""What a followed command sends, one JSON object a line."""


class SignalCommand(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A signal for a command and its process group."""

    signal: Literal["SIGHUP", "SIGINT", "SIGQUIT", "SIGKILL", "SIGUSR1", "SIGUSR2", "SIGTERM", "SIGCONT", "SIGSTOP"] = (
        "SIGTERM"
    )


class ResizeTerminal(TerminalSize, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The new size of a command's terminal."""
