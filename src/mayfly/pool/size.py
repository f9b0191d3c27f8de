"""What machines of one template have in common."""

from __future__ import annotations

from typing import NamedTuple

from mayfly.vmm.launcher import MachineSpec

__all__ = ["Size"]


class Size(NamedTuple):
    """The part of a specification that a template is made for; rates of I/O can be set on each clone."""

    mem_mib: int
    vcpus: int
    image: str = "python"
    scratch_mib: int = 0

    @classmethod
    def of(cls, spec: MachineSpec) -> Size:
        """The size that a specification asks for."""
        return cls(spec.mem_mib, spec.vcpus, spec.image, spec.scratch_mib)

    def spec(self, machine_id: str) -> MachineSpec:
        """A specification of this size with the usual rates."""
        return MachineSpec(
            id=machine_id,
            mem_mib=self.mem_mib,
            vcpus=self.vcpus,
            image=self.image,
            scratch_mib=self.scratch_mib,
        )
