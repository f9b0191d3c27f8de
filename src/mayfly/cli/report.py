"""What `mayfly run` tells about a run on standard error: progress, refusals, why it ended, and the stages' times."""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING

import click

from mayfly.cli.failure import paint, safe

if TYPE_CHECKING:
    from mayfly.model import Execution, Finding, Limits

__all__ = ["Progress", "ending", "refusal", "timings"]

_QUIET_S = 1.0
_LINE_CHARS = 160
_COLOURS = {"critical": "red", "high": "red", "medium": "yellow", "low": "cyan"}


class Progress:
    """Lines on standard error about what takes long: at once on a terminal, elsewhere after a second."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._patient = not sys.stderr.isatty()
        self._held: list[str] = []
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._closed = False

    def say(self, text: str) -> None:
        """Show `text`, from any thread; nothing after `close`."""
        with self._lock:
            if self._closed:
                return
            self._held.append(text)
            wait_s = self._started + _QUIET_S - time.monotonic()
            if not self._patient or wait_s <= 0:
                self._flush()
            elif self._timer is None:
                self._timer = threading.Timer(wait_s, self._late)
                self._timer.daemon = True
                self._timer.start()

    def close(self) -> None:
        """Nothing takes long any more; what was held back stays unsaid."""
        with self._lock:
            self._closed = True
            if self._timer is not None:
                self._timer.cancel()

    def _late(self) -> None:
        with self._lock:
            if not self._closed:
                self._flush()

    def _flush(self) -> None:
        for text in self._held:
            click.echo(f"{paint('mayfly:', fg='cyan')} {safe(text)}", err=True)
        self._held.clear()


def refusal(execution: Execution, code: str, *, name: str, policy: str) -> str:
    """Why the scan denied the program, each finding with its line of the source."""
    lines = [f"{paint('mayfly:', fg='red')} the scan refused this program (policy {policy}); nothing was run"]
    if execution.error is not None and execution.error.code == "denied":
        lines.append(f"  {safe(execution.error.message)}: repeat with --approve for each")
    source = code.splitlines()
    for finding in execution.scan.findings if execution.scan else ():
        lines += _finding(finding, source, name)
    return "\n".join(lines)


def _finding(finding: Finding, source: list[str], name: str) -> list[str]:
    severity = paint(finding.severity, fg=_COLOURS[finding.severity], bold=True)
    place = f"{name}:{finding.line}:{finding.column}" if finding.line > 0 else name
    shown = [f"  {safe(place)}: {severity} {safe(finding.rule)}: {safe(finding.message)}"]
    if 0 < finding.line <= len(source):
        text = source[finding.line - 1]
        # The column counts bytes of UTF-8, from 1.
        before = text.encode()[: max(0, finding.column - 1)].decode("utf-8", "ignore")
        margin = max(0, len(before) - _LINE_CHARS // 2)
        visible = safe(text[margin : margin + _LINE_CHARS].expandtabs(1))
        number = f"{finding.line:>7} | "
        shown += [number + visible, " " * (len(number) + len(safe(before[margin:].expandtabs(1)))) + "^"]
    return shown


def ending(execution: Execution, limits: Limits) -> str | None:
    """One sentence for an end that the program's own output does not explain; None where there is nothing to add."""
    reason = execution.error.message if execution.error else ""
    hint = f" ({execution.error.hint})" if execution.error and execution.error.hint else ""
    sentences = {
        "timeout": f"stopped after {limits.timeout_s:g} s; --timeout gives more",
        "cpu_limit": "stopped: it used up its CPU time",
        "oom": f"stopped: it used up its {limits.mem_mib} MiB of memory; --mem gives more",
        "signaled": f"ended by {execution.signal}",
        "agent_lost": f"the microVM was lost under the program: {reason}{hint}",
        "error": f"{reason or 'failed'}{hint}",
    }
    said = [sentences[execution.status]] if execution.status in sentences else []
    if execution.truncated:
        said.append(f"output was cut at {limits.output_bytes:,} bytes a stream")
    if not said:
        return None
    return "\n".join(f"{paint('mayfly:', fg='yellow')} {safe(sentence)}" for sentence in said)


def timings(execution: Execution) -> str:
    """`scan 1 ms · launch 3.9 s · … | Firecracker 1.12.1 | host emulated`."""
    parts = [" · ".join(f"{stage.name} {_duration(stage.ms)}" for stage in execution.stages)]
    if execution.host is not None:
        parts += [f"Firecracker {execution.host.firecracker}", f"host {execution.host.kind}"]
    return safe(" | ".join(parts))


def _duration(ms: float) -> str:
    return f"{ms / 1000:.1f} s" if ms >= 1000 else f"{ms:.0f} ms"
