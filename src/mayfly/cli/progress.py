"""Set-up's progress: live on a terminal, a line a step elsewhere."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self, TextIO

from mayfly.images.progress import BaseReporter, PlainReporter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console, RenderableType
    from rich.live import Live

    from mayfly.images.progress import Reporter, StepRecord

__all__ = ["RichReporter", "open_reporter"]

_REFRESH_PER_S = 8
_MARKS = {"running": "", "done": "[green]ok[/]", "skipped": "[dim]--[/]", "failed": "[red]failed[/]"}


class RichReporter(BaseReporter):
    """A table that is redrawn in place: each step with its state, its seconds, and what it is doing.

    Use as a context manager; nothing is drawn before the first step.
    """

    def __init__(self, console: Console) -> None:
        super().__init__()
        from rich.spinner import Spinner

        self._console = console
        self._spinner = Spinner("dots")  # one for all: it turns by the time since it was made
        self._live: Live | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.update(self._table(), refresh=True)
            self._live.stop()
            self._live = None

    def note(self, text: str) -> None:
        """Print a line above the table."""
        self._console.print(text, style="yellow", markup=False, highlight=False)

    def started(self, record: StepRecord) -> None:  # noqa: ARG002 - the table shows every record
        """Show the new step."""
        from rich.live import Live

        if self._live is None:
            self._live = Live(
                get_renderable=self._table,
                console=self._console,
                refresh_per_second=_REFRESH_PER_S,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()

    def _table(self) -> RenderableType:
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2))
        table.add_column(width=6, justify="right")
        table.add_column(no_wrap=True)
        table.add_column(justify="right", no_wrap=True)
        table.add_column(no_wrap=True, overflow="ellipsis", style="dim")
        for record in tuple(self.records):  # drawn from a thread of rich's own while steps are added
            running = record.state == "running"
            mark = self._spinner if running else Text.from_markup(_MARKS[record.state])
            seconds = "" if record.state == "skipped" else f"{record.seconds:.1f} s"
            table.add_row(mark, record.name, seconds, Text(record.detail if running else record.result))
        return table


@contextmanager
def open_reporter(stream: TextIO) -> Iterator[Reporter]:
    """The reporter that suits `stream`. NO_COLOR and TERM=dumb are honoured."""
    if not stream.isatty() or os.environ.get("TERM", "") in {"", "dumb"}:
        yield PlainReporter(stream)
        return
    from rich.console import Console

    with RichReporter(Console(file=stream)) as reporter:
        yield reporter
