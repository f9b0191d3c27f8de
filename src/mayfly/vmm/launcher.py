"""The seam between the node and what boots machines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:
    from pathlib import Path

    import anyio

    from mayfly.model import HostInfo, HostKind, Limits

__all__ = ["Launcher", "Machine", "MachineSpec"]


class MachineSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Size and name of a machine. `id`: at most 64 letters, digits and `-`, never used twice."""

    id: str
    mem_mib: int
    vcpus: int = 1
    image: str = "python"
    scratch_mib: int = 0
    io_mbps: int = 400
    io_ops: int = 50_000

    @classmethod
    def of(cls, machine_id: str, limits: Limits, *, image: str = "python") -> MachineSpec:
        """What a request's limits ask for."""
        return cls(
            id=machine_id,
            mem_mib=limits.mem_mib,
            vcpus=limits.vcpus,
            image=image,
            scratch_mib=limits.scratch_mib,
            io_mbps=limits.io_mbps,
            io_ops=limits.io_ops,
        )


class Machine(Protocol):
    """A running machine whose agent can be reached."""

    @property
    def id(self) -> str:
        """The name it was made under."""

    @property
    def vsock_path(self) -> Path:
        """The Unix socket behind the guest's vsock device."""

    @property
    def exited(self) -> anyio.Event:
        """Set when the VMM process has ended."""

    @property
    def greeted(self) -> bool:
        """Whether the guest has its own entropy, clock and names already."""

    def cpu_s(self) -> float:
        """CPU seconds that the machine has used on the host so far; 0 when unknown."""

    def last_words(self) -> str:
        """The end of what the VMM printed, at most a few kilobytes; for error messages."""

    async def destroy(self) -> None:
        """Kill, wait, remove jail and control group, verify. Idempotent; HostError when something remains."""


class Launcher(Protocol):
    """Gives machines, each to one caller once."""

    kind: HostKind

    async def launch(self, spec: MachineSpec) -> Machine:
        """A fresh machine; on failure or cancellation nothing of it remains."""

    def describe(self, image: str = "python") -> HostInfo:
        """Where programs run that start from `image`."""
