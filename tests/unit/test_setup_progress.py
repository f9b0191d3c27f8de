from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from mayfly.cli import cli
from mayfly.cli.progress import RichReporter, open_reporter
from mayfly.images import progress
from mayfly.images.progress import PlainReporter, SilentReporter
from mayfly.vmm.probe import KvmAnswer

if TYPE_CHECKING:
    from pathlib import Path

    from mayfly.images.progress import BaseReporter


def work(reporter: BaseReporter) -> None:
    with reporter.step("Firecracker") as step:
        step.skip("already there")
    with reporter.step("Guest kernel") as step:
        step.detail("compiling")
        step.result("6.1.0")
    with pytest.raises(ValueError, match="no"), reporter.step("Guest image"):
        raise ValueError("no")
    reporter.note("a note")


def test_each_step_has_a_name_a_state_and_its_seconds() -> None:
    reporter = SilentReporter()
    work(reporter)
    assert [(record.name, record.state) for record in reporter.records] == [
        ("Firecracker", "skipped"),
        ("Guest kernel", "done"),
        ("Guest image", "failed"),
    ]
    assert all(record.ended_s is not None and record.seconds >= 0 for record in reporter.records)


def test_plain_progress_is_one_line_a_step() -> None:
    out = io.StringIO()
    work(PlainReporter(out))
    assert out.getvalue().splitlines() == [
        "  --  Firecracker  already there",
        "  ok  Guest kernel  0.0 s  6.1.0",
        "fail  Guest image  0.0 s",
        "  ..  a note",
    ]


def test_long_plain_step_says_what_it_is_doing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_DETAIL_EVERY_S", 0.0)
    out = io.StringIO()
    with PlainReporter(out).step("Guest kernel") as step:
        step.detail("compiling, 3 of 9 files")
    assert out.getvalue().splitlines()[0] == "  ..  Guest kernel  compiling, 3 of 9 files  0 s"


def test_terminal_shows_all_steps_and_takes_text_literally() -> None:
    from rich.console import Console

    out = io.StringIO()
    with RichReporter(Console(file=out, force_terminal=True, width=100, color_system=None)) as reporter:
        work(reporter)
        with reporter.step("Last") as step:
            step.result("[bold]not markup")
    text = out.getvalue()
    for part in ("Firecracker", "already there", "Guest kernel", "6.1.0", "failed", "a note", "[bold]not markup"):
        assert part in text
    assert text.rstrip().endswith("\x1b[?25h"), "the cursor is shown again"


def test_pipe_gets_plain_lines_without_escapes() -> None:
    out = io.StringIO()
    with open_reporter(out) as reporter, reporter.step("Guest kernel"):
        pass
    assert "\x1b" not in out.getvalue()
    assert "Guest kernel" in out.getvalue()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("term", "live"), [("xterm", True), ("dumb", False), ("", False)])
def test_live_display_needs_a_terminal_that_can(monkeypatch: pytest.MonkeyPatch, term: str, *, live: bool) -> None:
    monkeypatch.setenv("TERM", term)
    with open_reporter(Terminal()) as reporter:
        assert isinstance(reporter, RichReporter) is live


def test_an_interrupted_set_up_says_that_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mayfly.images.setup.run_setup", interrupted)
    monkeypatch.setenv("MAYFLY_HOME", str(tmp_path))
    done = CliRunner().invoke(cli, ["setup", "--no-emulated"])
    assert "interrupted; the same command goes on from here" in done.output
    assert done.exit_code != 0


@pytest.mark.parametrize(
    ("device", "usable", "passes"),
    [
        ("no /dev/kvm", False, [True]),
        (None, True, [False]),
        (None, False, [False, True]),  # a device that takes machines and runs none
    ],
)
def test_a_first_set_up_does_not_look_at_everything_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str | None, passes: list[bool], *, usable: bool
) -> None:
    made: list[bool] = []
    monkeypatch.setattr("mayfly.images.setup.run_setup", lambda *_, **given: made.append(given["emulated"]))
    monkeypatch.setattr("mayfly.vmm.probe.device_problem", lambda: device)
    monkeypatch.setattr("mayfly.node.bringup.kvm_answer", lambda _: KvmAnswer(usable=usable, reason="as it is"))
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setenv("MAYFLY_HOME", str(tmp_path))
    assert CliRunner().invoke(cli, ["setup"]).exit_code == 0
    assert made == passes
