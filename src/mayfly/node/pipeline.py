"""The life of one execution: scan, launch, greet, execute, collect, destroy; each a stage with a duration."""

from __future__ import annotations

import contextlib
import secrets
import signal
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import anyio
import msgspec
import structlog

from mayfly.errors import DeniedError, GuestError, MayflyError, VmmExitedError, VmmTimeoutError
from mayfly.guest.calls import execute
from mayfly.guest.link import open_link
from mayfly.host.tasks import single_error
from mayfly.model import ErrorInfo, Execution, Stage, StageDone, Status, Usage, image_for
from mayfly.node.clock import ms_since, rfc3339
from mayfly.node.collect import OutputCollector
from mayfly.pool.greeting import greet_machine
from mayfly.vmm.launcher import MachineSpec

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable

    from mayfly.guest.calls import ExitReport
    from mayfly.guest.link import Link
    from mayfly.model import Event, ExecutionId, ExecutionRequest, Shape, Verdict
    from mayfly.node.gate import Passage
    from mayfly.vmm.launcher import Launcher, Machine

__all__ = ["Run", "error_info"]

_log = structlog.get_logger("mayfly.node")

_LINK_DEADLINE_S = 15.0
_CPU_WATCH_INTERVAL_S = 0.25
_CPU_GRACE_S = 2.0
_EXIT_CODES: dict[Status, int] = {"timeout": 124, "cpu_limit": 124, "oom": 137, "denied": 126}
_FAILED_EXIT_CODE = 125


@dataclass
class _Outcome:
    status: Status = "error"
    exit_code: int = _FAILED_EXIT_CODE
    signal: str | None = None
    error: MayflyError | None = None
    usage: Usage = field(default_factory=Usage)
    guest_truncated: bool = False


class Run:
    """One execution in progress. `run` returns its result and leaves no machine behind, however it ends."""

    def __init__(
        self,
        execution_id: ExecutionId,
        request: ExecutionRequest,
        *,
        on_event: Callable[[Event], Awaitable[None]] | None = None,
        stdin: AsyncIterable[bytes] | None = None,
    ) -> None:
        self.id = execution_id
        self._request = request
        self._image = image_for(request.lang, request.image)
        self._on_event = on_event
        self._stdin = stdin
        self._stages: list[Stage] = []
        limit = request.limits.output_bytes
        self._streams = {name: OutputCollector(name, limit) for name in _STREAMS}
        self._outcome = _Outcome()
        self._verdict: Verdict | None = None
        self._shape: Shape | None = None
        self._created = time.time()

    async def run(self, scan: Callable[[ExecutionRequest], Awaitable[Passage]], launcher: Launcher) -> Execution:
        """Take the execution through its stages. Failures of Mayfly itself end in status `error`."""
        try:
            async with self._stage("scan"):
                passage = await scan(self._request)
            self._verdict, self._shape = passage.verdict, passage.shape
            if passage.run:
                self._request = _narrowed(self._request, passage.shape)
                await self._in_machine(launcher)
            else:
                self._outcome = _Outcome("denied", _EXIT_CODES["denied"], error=_approval_error(passage.missing))
        except MayflyError as error:
            _log.warning("execution failed", id=self.id, code=error.code, error=str(error))
            self._fail(error)
        return self._result(launcher)

    async def _in_machine(self, launcher: Launcher) -> None:
        limits = self._request.limits
        async with self._stage("launch"):
            machine = await launcher.launch(MachineSpec.of(self.id, limits, image=self._image))
        try:
            await self._use(machine)
            async with self._stage("collect"):
                await self._flush()
        finally:
            with anyio.CancelScope(shield=True):
                started = time.perf_counter()
                await machine.destroy()
                self._stages.append(Stage("destroy", ms_since(started)))
        await self._send(StageDone(name="destroy", ms=self._stages[-1].ms))

    async def _use(self, machine: Machine) -> None:
        """Run the program; a machine that dies under it is a result, not a failure of ours."""
        try:
            async with self._stage("greet"):
                if not machine.greeted:
                    await greet_machine(machine)
            async with self._stage("execute"):
                await self._execute(machine)
        except (GuestError, VmmExitedError, VmmTimeoutError) as error:
            if self._time_is_up():  # the agent did not keep the deadline, the host did
                self._outcome = _Outcome("timeout", _EXIT_CODES["timeout"])
            else:
                self._outcome = _Outcome("agent_lost", _FAILED_EXIT_CODE, error=error)

    def _time_is_up(self) -> bool:
        last = self._stages[-1]
        return last.name == "execute" and last.ms >= self._request.limits.timeout_s * 1000

    async def _execute(self, machine: Machine) -> None:
        try:
            with single_error():
                async with open_link(machine.vsock_path, deadline_s=_LINK_DEADLINE_S) as link:
                    self._outcome = _outcome_of(await self._race(link, machine))
        except _CpuUsedUpError:
            self._outcome = _Outcome("cpu_limit", _EXIT_CODES["cpu_limit"])

    async def _race(self, link: Link, machine: Machine) -> ExitReport:
        """The program's end, unless the machine's end or the CPU limit comes first."""
        async with anyio.create_task_group() as group:
            group.start_soon(_fail_at_exit, machine)
            if self._request.limits.cpu_s is not None:
                group.start_soon(self._watch_cpu, machine, self._request.limits.cpu_s)
            report = await execute(
                link,
                self._request,
                nonce=secrets.token_hex(16),
                mem_bytes=None,
                stdin=self._stdin,
                on_output=self._take_output,
            )
            group.cancel_scope.cancel()
        return report

    async def _watch_cpu(self, machine: Machine, limit: float) -> None:
        """The host's own CPU limit, for a guest whose agent does not keep it."""
        start = machine.cpu_s()
        while machine.cpu_s() - start < limit + _CPU_GRACE_S:  # noqa: ASYNC110 - the kernel has no event for it
            await anyio.sleep(_CPU_WATCH_INTERVAL_S)
        raise _CpuUsedUpError

    async def _take_output(self, stream: Literal["stdout", "stderr"], data: bytes) -> None:
        event = self._streams[stream].add(data)
        if event is not None:
            await self._send(event)

    async def _flush(self) -> None:
        for collector in self._streams.values():
            event = collector.flush()
            if event is not None:
                await self._send(event)

    async def _send(self, event: Event) -> None:
        if self._on_event is not None:
            await self._on_event(event)

    @contextlib.asynccontextmanager
    async def _stage(self, name: str) -> AsyncIterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            stage = Stage(name, ms_since(started))
            self._stages.append(stage)
            _log.debug("stage", id=self.id, name=name, ms=stage.ms)
        await self._send(StageDone(name=name, ms=stage.ms))

    def _fail(self, error: MayflyError) -> None:
        if self._outcome.status in ("error", "agent_lost") or error.phase != "destroy":
            self._outcome = _Outcome("error", _FAILED_EXIT_CODE, error=error)
        else:  # the program's own result stands; what was left behind is reported beside it
            self._outcome.error = error

    def _result(self, launcher: Launcher) -> Execution:
        outcome, out, err = self._outcome, self._streams["stdout"], self._streams["stderr"]
        return Execution(
            id=self.id,
            status=outcome.status,
            exit_code=outcome.exit_code,
            signal=outcome.signal,
            stdout=out.text(),
            stderr=err.text(),
            truncated=out.truncated or err.truncated or outcome.guest_truncated,
            error=error_info(outcome.error),
            scan=self._verdict,
            shape=self._shape,
            stages=tuple(self._stages),
            usage=outcome.usage,
            host=launcher.describe(self._image),
            lang=self._request.lang,
            created_at=rfc3339(self._created),
        )


class _CpuUsedUpError(Exception):
    """The machine used more CPU time than the program may."""


_STREAMS: tuple[Literal["stdout"], Literal["stderr"]] = ("stdout", "stderr")


async def _fail_at_exit(machine: Machine) -> None:
    await machine.exited.wait()
    raise VmmExitedError("the microVM ended under the program", phase="execute")


def _outcome_of(report: ExitReport) -> _Outcome:
    status, code, signal_name = _status_of(report)
    return _Outcome(status, code, signal_name, None, report.usage, report.truncated)


def _status_of(report: ExitReport) -> tuple[Status, int, str | None]:
    if report.reason == "exit":
        code = report.exit_code or 0
        return ("succeeded" if code == 0 else "failed"), code, None
    if report.reason == "signal":
        return "signaled", 128 + _signal_number(report.signal or ""), report.signal
    status: Status = {"timeout": "timeout", "cpu": "cpu_limit", "oom": "oom"}[report.reason]  # type: ignore[assignment]
    return status, _EXIT_CODES[status], None


def _signal_number(name: str) -> int:
    """Number of `SIGKILL` or `SIGRTMIN+3`; 0 for a name that is none."""
    base, _, offset = name.partition("+")
    try:
        return signal.Signals[base].value + int(offset or 0)
    except (KeyError, ValueError):
        return 0


def _narrowed(request: ExecutionRequest, shape: Shape) -> ExecutionRequest:
    limits = msgspec.structs.replace(request.limits, pids=shape.pids, mem_mib=shape.mem_mib)
    return msgspec.structs.replace(request, limits=limits)


def _approval_error(missing: tuple[str, ...]) -> MayflyError | None:
    """For a program that runs once somebody has approved what was found."""
    if not missing:
        return None
    return DeniedError(f"the policy asks for approval of {', '.join(missing)}", field="approve")


def error_info(error: MayflyError | None) -> ErrorInfo | None:
    """An error as data, None for none."""
    if error is None:
        return None
    return ErrorInfo(
        code=error.code,
        message=error.message,
        phase=error.phase,
        retryable=error.retryable,
        field=error.field,
        hint=error.hint,
        sandbox_id=error.sandbox_id,
    )
