"""Says what set-up is doing: named steps, each with a state and its seconds."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

__all__ = ["BaseReporter", "PlainReporter", "Reporter", "SilentReporter", "Step", "StepRecord"]

StepState = Literal["running", "done", "skipped", "failed"]

_DETAIL_EVERY_S = 15.0


@dataclass
class StepRecord:
    """One step: `seconds` counts to its end, or to now while it runs."""

    name: str
    state: StepState = "running"
    detail: str = ""
    result: str = ""
    started_s: float = field(default_factory=time.monotonic)
    ended_s: float | None = None

    @property
    def seconds(self) -> float:
        """How long it took, or has taken."""
        return (time.monotonic() if self.ended_s is None else self.ended_s) - self.started_s


class Step(Protocol):
    """A running step, as the one who does the work sees it."""

    def detail(self, text: str) -> None:
        """Say what is going on; the latest text wins."""

    def skip(self, reason: str) -> None:
        """Nothing had to be done, because of `reason`."""

    def result(self, text: str) -> None:
        """What came out, in a few words; shown when the step has ended."""


class Reporter(Protocol):
    """Takes steps and notes. Used from one thread."""

    def step(self, name: str) -> AbstractContextManager[Step]:
        """A step that lasts as long as the block; an exception marks it failed."""

    def note(self, text: str) -> None:
        """One line that belongs to no step's state, as a warning."""


class _RunningStep:
    """Writes into a record and tells its reporter."""

    def __init__(self, reporter: BaseReporter, record: StepRecord) -> None:
        self._reporter = reporter
        self._record = record

    def detail(self, text: str) -> None:
        self._record.detail = text
        self._reporter.changed(self._record)

    def skip(self, reason: str) -> None:
        self._record.state = "skipped"
        self._record.result = reason

    def result(self, text: str) -> None:
        self._record.result = text


class BaseReporter:
    """Keeps the records; what is shown is up to the three methods a subclass replaces."""

    def __init__(self) -> None:
        self.records: list[StepRecord] = []

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """See `Reporter.step`."""
        record = StepRecord(name)
        self.records.append(record)
        self.started(record)
        try:
            yield _RunningStep(self, record)
        except BaseException:
            record.state = "failed"
            raise
        else:
            if record.state == "running":
                record.state = "done"
        finally:
            record.ended_s = time.monotonic()
            self.finished(record)

    def note(self, text: str) -> None:
        """See `Reporter.note`."""

    def started(self, record: StepRecord) -> None:
        """A step began."""

    def changed(self, record: StepRecord) -> None:
        """A step has a new detail."""

    def finished(self, record: StepRecord) -> None:
        """A step ended; the record says how."""


class SilentReporter(BaseReporter):
    """Shows nothing."""


class PlainReporter(BaseReporter):
    """One line a step, for logs and pipes; a long step also says now and then what it is doing."""

    _MARKS = {"running": "  ..", "done": "  ok", "skipped": "  --", "failed": "fail"}  # noqa: RUF012 - constant

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._spoke_s = time.monotonic()

    def note(self, text: str) -> None:
        """See `Reporter.note`."""
        self._print(f"  ..  {text}")

    def started(self, record: StepRecord) -> None:
        """Nothing is printed yet: most steps end at once."""
        self._spoke_s = record.started_s

    def changed(self, record: StepRecord) -> None:
        """Print the detail when this step has been silent for a while."""
        if time.monotonic() - self._spoke_s >= _DETAIL_EVERY_S:
            self._print(f"  ..  {record.name}  {record.detail}  {record.seconds:.0f} s")

    def finished(self, record: StepRecord) -> None:
        """Print the step's line."""
        mark = self._MARKS[record.state]
        seconds = "" if record.state == "skipped" else f"{record.seconds:.1f} s"
        self._print("  ".join(part for part in (mark, record.name, seconds, record.result) if part))

    def _print(self, line: str) -> None:
        self._spoke_s = time.monotonic()
        print(line, file=self._stream, flush=True)
