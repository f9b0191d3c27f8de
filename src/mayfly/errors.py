"""Every error that Mayfly raises, in one tree.

What a program does wrong is data (see `mayfly.model.Execution.status`); these are raised when Mayfly is asked
for something impossible, or cannot do its work::

    MayflyError
    ├── InvalidRequestError      a value is out of its range; names the field
    │   └── ConfigError          the same, in mayfly.toml or the environment
    ├── AuthError                the token is missing or wrong
    ├── NotFoundError            no such execution, sandbox, context, file or image
    ├── DeniedError              the scan's verdict refuses the program
    ├── CapacityError            the node is full; carries `retry_after_s`
    ├── SandboxError             something in a sandbox that keeps state
    │   ├── SandboxEndedError    it has ended; the message says when and why
    │   │   └── SandboxLostError it ended without anybody's wish
    │   ├── BusyError            what was asked for is in use; try again
    │   ├── UnsupportedError     its image has no such language or ability
    │   └── FileSystemError      its file system refused
    │       ├── FileMissingError there is no such file or directory
    │       ├── FilePresentError there is one already
    │       ├── FileDeniedError  its rights do not allow it
    │       └── NoSpaceError     its disk is full
    ├── NodeError                talking to a node
    │   ├── NodeUnavailableError no node answers and none could be started
    │   ├── NodeLostError        the node went away in the middle
    │   └── NodeVersionError     the node speaks another version
    ├── SetupError               something that `mayfly setup` makes is missing or failed
    │   ├── DownloadError        a download failed or did not match its hash
    │   ├── DiskFullError        no space left
    │   └── CorruptError         a stored file does not match its hash
    ├── HostError                this machine: rights, KVM, cgroups
    │   ├── PermissionDeniedError
    │   └── EmulatedHostError    the QEMU machine failed
    ├── VmmError                 Firecracker or its jailer
    │   ├── VmmApiError          Firecracker refused a request
    │   ├── VmmExitedError       Firecracker ended when it should not
    │   └── VmmTimeoutError      a step missed its deadline
    └── GuestError               the agent in the VM
        ├── ProtocolError        it sent something that is not the protocol
        └── AgentLostError       it stopped answering
"""

from __future__ import annotations

from typing import Any, ClassVar

__all__ = [
    "AgentLostError",
    "AuthError",
    "BusyError",
    "CapacityError",
    "ConfigError",
    "CorruptError",
    "DeniedError",
    "DiskFullError",
    "DownloadError",
    "EmulatedHostError",
    "FileDeniedError",
    "FileMissingError",
    "FilePresentError",
    "FileSystemError",
    "GuestError",
    "HostError",
    "InvalidRequestError",
    "MayflyError",
    "NoSpaceError",
    "NodeError",
    "NodeLostError",
    "NodeUnavailableError",
    "NodeVersionError",
    "NotFoundError",
    "PermissionDeniedError",
    "ProtocolError",
    "SandboxEndedError",
    "SandboxError",
    "SandboxLostError",
    "SetupError",
    "UnsupportedError",
    "VmmApiError",
    "VmmError",
    "VmmExitedError",
    "VmmTimeoutError",
    "error_from_code",
]


class MayflyError(Exception):
    """Root of all errors.

    `code` is stable and machine-readable; `phase` names the stage that failed (`request`, `setup`, `scan`,
    `launch`, `execute`, `collect`, `destroy`, `connect`), `retryable` says whether the same call may work later,
    `field` names the offending input, `hint` says what to do, `sandbox_id` names the sandbox that it is about.
    """

    code: ClassVar[str] = "internal"
    default_phase: ClassVar[str] = ""
    default_retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        phase: str | None = None,
        retryable: bool | None = None,
        field: str | None = None,
        hint: str | None = None,
        sandbox_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.phase = self.default_phase if phase is None else phase
        self.retryable = self.default_retryable if retryable is None else retryable
        self.field = field
        self.hint = hint
        self.sandbox_id = sandbox_id

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message

    def to_dict(self) -> dict[str, Any]:
        """The shape that HTTP answers and `Execution.error` carry; absent fields are left out."""
        shape = {
            "code": self.code,
            "message": self.message,
            "phase": self.phase,
            "retryable": self.retryable,
            "field": self.field,
            "hint": self.hint,
            "sandbox_id": self.sandbox_id,
        }
        return {key: value for key, value in shape.items() if value is not None}


class InvalidRequestError(MayflyError):
    """A value is missing, of the wrong type, or out of its range; `field` names it."""

    code = "invalid_request"
    default_phase = "request"


class ConfigError(InvalidRequestError):
    """A setting in `mayfly.toml`, the environment or a flag is wrong."""

    code = "config"


class AuthError(MayflyError):
    """The bearer token is missing or wrong."""

    code = "unauthorized"
    default_phase = "request"


class NotFoundError(MayflyError):
    """No such execution, sandbox, context, file or image."""

    code = "not_found"
    default_phase = "request"


class DeniedError(MayflyError):
    """The scan's verdict refuses the program."""

    code = "denied"
    default_phase = "scan"


class CapacityError(MayflyError):
    """The node has no room now. `retry_after_s` is its guess of when to try again."""

    code = "capacity"
    default_phase = "launch"
    default_retryable = True

    def __init__(self, message: str, *, retry_after_s: float = 1.0, **rest: Any) -> None:
        super().__init__(message, **rest)
        self.retry_after_s = retry_after_s

    def to_dict(self) -> dict[str, Any]:
        """As `MayflyError.to_dict`, with `retry_after_s`."""
        return super().to_dict() | {"retry_after_s": self.retry_after_s}


class SandboxError(MayflyError):
    """Something in a sandbox that keeps state could not be done."""

    code = "sandbox"
    default_phase = "execute"


class SandboxEndedError(SandboxError):
    """The sandbox has ended: killed, out of its time, idle, or with its node; the message says when and why."""

    code = "sandbox_ended"


class SandboxLostError(SandboxEndedError):
    """The sandbox ended without anybody's wish: its microVM died, or the node that held it."""

    code = "sandbox_lost"


class BusyError(SandboxError):
    """What was asked for is in use by somebody else, and too many wait for it."""

    code = "busy"
    default_retryable = True


class UnsupportedError(SandboxError):
    """The sandbox's image has no such language or ability."""

    code = "unsupported"


class FileSystemError(SandboxError):
    """The sandbox's file system refused; the message has its reason."""

    code = "file_system"


class FileMissingError(FileSystemError):
    """There is no such file or directory in the sandbox."""

    code = "file_missing"


class FilePresentError(FileSystemError):
    """In the sandbox there is something of that name already."""

    code = "file_present"


class FileDeniedError(FileSystemError):
    """The rights of the sandbox's user do not allow it."""

    code = "file_denied"


class NoSpaceError(FileSystemError):
    """The sandbox's disk is full."""

    code = "no_space"


class NodeError(MayflyError):
    """Talking to a node failed."""

    code = "node"
    default_phase = "connect"
    default_retryable = True


class NodeUnavailableError(NodeError):
    """No node answers, and none could be started."""

    code = "node_unavailable"


class NodeLostError(NodeError):
    """The node went away while it worked for us; the execution's outcome is unknown."""

    code = "node_lost"


class NodeVersionError(NodeError):
    """The node speaks another version of the API."""

    code = "node_version"
    default_retryable = False


class SetupError(MayflyError):
    """Something that `mayfly setup` makes is missing, or making it failed."""

    code = "setup"
    default_phase = "setup"


class DownloadError(SetupError):
    """A download failed, or its hash is not the pinned one."""

    code = "download"
    default_retryable = True


class DiskFullError(SetupError):
    """No space is left where Mayfly keeps its state."""

    code = "disk_full"


class CorruptError(SetupError):
    """A stored file does not match the hash it was stored under."""

    code = "corrupt"


class HostError(MayflyError):
    """This machine does not offer what is needed: rights, KVM, cgroups."""

    code = "host"
    default_phase = "launch"


class PermissionDeniedError(HostError):
    """A right is missing."""

    code = "permission"


class EmulatedHostError(HostError):
    """The emulated host (QEMU) did not start, or died."""

    code = "emulated_host"


class VmmError(MayflyError):
    """Firecracker or its jailer failed."""

    code = "vmm"
    default_phase = "launch"


class VmmApiError(VmmError):
    """Firecracker refused a request; the message holds its own words."""

    code = "vmm_api"


class VmmExitedError(VmmError):
    """Firecracker ended when it should not have."""

    code = "vmm_exited"


class VmmTimeoutError(VmmError):
    """A step missed its deadline."""

    code = "vmm_timeout"
    default_retryable = True


class GuestError(MayflyError):
    """The agent in the VM failed us."""

    code = "guest"
    default_phase = "execute"


class ProtocolError(GuestError):
    """The guest sent something that is not the protocol."""

    code = "protocol"


class AgentLostError(GuestError):
    """The agent closed its connection or stopped answering."""

    code = "agent_lost"


def _tree(cls: type[MayflyError]) -> dict[str, type[MayflyError]]:
    found = {cls.code: cls}
    for child in cls.__subclasses__():
        found |= _tree(child)
    return found


def error_from_code(code: str, message: str, **fields: Any) -> MayflyError:
    """The error with this `code`, as received over HTTP; an unknown code gives a plain `MayflyError`."""
    cls = _tree(MayflyError).get(code, MayflyError)
    known = {k: v for k, v in fields.items() if k in {"phase", "retryable", "field", "hint", "sandbox_id"}}
    if issubclass(cls, CapacityError) and isinstance(fields.get("retry_after_s"), (int, float)):
        known["retry_after_s"] = float(fields["retry_after_s"])
    return cls(message, **known)
