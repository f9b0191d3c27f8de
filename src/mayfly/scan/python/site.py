"""A call as the table's handlers see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mayfly.scan.facts import UNKNOWN, Value
from mayfly.scan.values import taints_of

if TYPE_CHECKING:
    from mayfly.scan.python.walk import Walk
    from mayfly.scan.recorder import Recorder

__all__ = ["Site"]


@dataclass(slots=True)
class Site:
    """A call: what is called, on what, with what."""

    walk: Walk
    function: Value
    receiver: Value
    args: list[Value]
    kwargs: dict[str, Value]
    method: str

    @property
    def rec(self) -> Recorder:
        """Where facts go."""
        return self.walk.rec

    def arg(self, number: int, *names: str) -> Value:
        """The argument at a position or by one of its names; unknown when it is not given."""
        if 0 <= number < len(self.args):
            return self.args[number]
        return next((self.kwargs[name] for name in names if name in self.kwargs), UNKNOWN)

    def given(self, number: int, *names: str) -> bool:
        """True when the argument is given."""
        return 0 <= number < len(self.args) or any(name in self.kwargs for name in names)

    def true(self, name: str) -> bool:
        """True when a keyword argument is known to be true."""
        value = self.kwargs.get(name)
        return value is not None and any(value.consts) and bool(value.consts[0])

    @property
    def taints(self) -> frozenset[str]:
        """What everything in the call carries."""
        return taints_of([self.receiver, *self.args, *self.kwargs.values()])
