"""Commands in sandboxes: scanned as shell programs, started so that they outlive who asked, followed by anybody."""

from __future__ import annotations

import base64
import contextlib
import shlex
import signal
from typing import TYPE_CHECKING, Any

import msgspec

from mayfly.errors import DeniedError
from mayfly.guest.shapes import ProcessEnd, ProcessGap, ProcessOutput, ProcessSpec
from mayfly.node.clock import rfc3339
from mayfly.node.pipeline import error_info
from mayfly.sandbox_model import (
    CommandAccepted,
    CommandEnd,
    CommandEnded,
    CommandEvent,
    CommandGap,
    CommandInfo,
    CommandOutput,
    CommandResult,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mayfly.errors import MayflyError
    from mayfly.guest.processes import ProcessLink
    from mayfly.guest.sandbox import Guest
    from mayfly.guest.shapes import ProcessEvent, ProcessInfo
    from mayfly.node.gate import Gate
    from mayfly.node.sandbox import Sandbox
    from mayfly.sandbox_model import StartCommand

__all__ = ["admit_command", "command_info", "failed", "follow_command", "gather_command", "refused", "start_command"]

_BUFFER_BYTES = 1024 * 1024
"""Output of a command that is kept in the guest for those who come later."""
_SHOWN_CHARS = 200


async def admit_command(gate: Gate, sandbox: Sandbox, request: StartCommand) -> CommandEnd | None:
    """The refusal, where the scan refuses the command."""
    line = request.cmd if request.cmd is not None else shlex.join(request.args or ())
    policy, image = sandbox.request.policy, sandbox.image
    verdict, decision = await gate.judge(line, "bash", policy=policy, image=image, approved=request.approve)
    sandbox.log.add("command", f"{'' if decision.run else 'denied: '}{line[:_SHOWN_CHARS]}")
    if decision.run:
        return None
    missing = ", ".join(decision.missing)
    error = DeniedError(f"the policy asks for approval of {missing}", field="approve") if missing else None
    return CommandEnd(status="denied", exit_code=126, scan=verdict, failure=error_info(error))


@contextlib.asynccontextmanager
async def start_command(guest: Guest, sandbox: Sandbox, request: StartCommand) -> AsyncIterator[ProcessLink]:
    """Start a command and follow it for the block; it goes on after."""
    pty = None if request.pty is None else (request.pty.cols, request.pty.rows)
    spec = ProcessSpec(
        argv=request.args,
        shell=request.cmd,
        cwd=request.cwd or "",
        env={**sandbox.request.envs, **request.envs},
        stdin=request.stdin,
        pty=pty,
        keep=True,
        timeout_s=request.timeout_s,
        pids=sandbox.limits.pids,
        buffer_bytes=_BUFFER_BYTES,
    )
    async with guest.open_process(spec) as link:
        yield link


async def follow_command(link: ProcessLink) -> AsyncIterator[CommandEvent]:
    """A command's events, from its acceptance to its end."""
    offset = link.offset
    yield CommandAccepted(offset=offset, pid=link.pid)
    async for event in link:
        made = _event_of(event, offset)
        offset = made.offset
        yield made


async def gather_command(link: ProcessLink, output_bytes: int) -> CommandResult:
    """Wait for a command's end; of each of its outputs `output_bytes` are kept."""
    kept = {"stdout": bytearray(), "stderr": bytearray()}
    truncated = False
    end = CommandEnd(status="error", exit_code=125)
    async for event in link:
        if isinstance(event, ProcessOutput):
            room = output_bytes - len(kept[event.stream])
            truncated |= len(event.data) > room
            kept[event.stream] += event.data[: max(0, room)]
        elif isinstance(event, ProcessGap):
            truncated = True
        else:
            end = _end_of(event)
    out, err = (kept[name].decode("utf-8", "replace") for name in ("stdout", "stderr"))
    return CommandResult(pid=link.pid, truncated=truncated, stdout=out, stderr=err, **_fields(end))


def refused(end: CommandEnd) -> CommandResult:
    """The result of a command that was not started."""
    return CommandResult(**_fields(end))


def failed(error: MayflyError) -> CommandEnd:
    """The end of a command whose microVM or agent failed."""
    return CommandEnd(status="error", exit_code=125, failure=error_info(error))


def command_info(info: ProcessInfo) -> CommandInfo:
    """What the guest says of a command, as callers see it."""
    end = None if info.end is None else _end_of(info.end)
    return CommandInfo(
        pid=info.pid,
        command=info.command,
        cwd=info.cwd,
        running=info.running,
        pty=info.pty,
        started_at=rfc3339(min(max(info.started_at, 0.0), 2.0**33)),
        exit_code=None if end is None else end.exit_code,
        signal=None if end is None else end.signal,
        output_bytes=info.output_bytes,
    )


def _end_of(end: ProcessEnd) -> CommandEnd:
    """How a process ended, as callers see it."""
    if end.reason == "exit":
        code = end.exit_code or 0
        return CommandEnd(status="failed" if code else "succeeded", exit_code=code, usage=end.usage)
    if end.reason == "signal":
        return CommandEnd(status="signaled", exit_code=_signal_code(end.signal), signal=end.signal, usage=end.usage)
    if end.reason == "timeout":
        return CommandEnd(status="timeout", exit_code=124, usage=end.usage)
    return CommandEnd(status="oom", exit_code=137, usage=end.usage)


def _event_of(event: ProcessEvent, offset: int) -> CommandEvent:
    if isinstance(event, ProcessOutput):
        after = event.offset + len(event.data)
        try:
            return CommandOutput(offset=after, stream=event.stream, text=event.data.decode())
        except UnicodeDecodeError:
            coded = base64.b64encode(event.data).decode("ascii")
            return CommandOutput(offset=after, stream=event.stream, base64=coded)
    if isinstance(event, ProcessGap):
        return CommandGap(offset=event.offset, bytes=event.missing_bytes)
    return CommandEnded(offset=offset, end=_end_of(event))


def _signal_code(name: str | None) -> int:
    try:
        return 128 + signal.Signals[name or ""].value
    except KeyError:
        return 128


def _fields(end: CommandEnd) -> dict[str, Any]:
    return msgspec.structs.asdict(end)
