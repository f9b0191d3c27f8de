"""Runs of code in sandboxes: scanned, carried out beside the request that asked for them, kept for a while."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import structlog

from mayfly.errors import AgentLostError, BusyError, DeniedError, MayflyError, NotFoundError
from mayfly.guest.shapes import CodeEnd, CodeRequest
from mayfly.node.code_run import ITEM_BYTES, RESULT_BYTES, CodeRun
from mayfly.node.pipeline import error_info
from mayfly.sandbox_model import RunId
from mayfly.scan.notebook import cell_source

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from mayfly.guest.sandbox import Guest
    from mayfly.node.gate import Gate
    from mayfly.node.sandbox import Sandbox
    from mayfly.sandbox_model import ContextId, RunCode
    from mayfly.scan.decision import Decision

__all__ = ["Runs"]

_log = structlog.get_logger("mayfly.node")

_KEPT_S = 300.0
_KEPT_BYTES = 32 * 1024 * 1024
_ACTIVE_MAX = 64
_GRACE_S = 30.0
_LOG_CHARS = 2000
_TURNS = 4
"""Of the event loop, in which the answer goes out before the next run is thought of."""


class Runs:
    """All runs of a node. Finished ones are kept for five minutes, together at most 32 MiB of them.

    `group` carries them out: a run does not end with the request that asked for it.
    """

    def __init__(self, gate: Gate, group: TaskGroup) -> None:
        self._gate = gate
        self._group = group
        self._active: dict[RunId, tuple[CodeRun, str]] = {}
        self._kept: OrderedDict[RunId, tuple[CodeRun, float]] = OrderedDict()
        self._kept_bytes = 0

    def start(self, sandbox: Sandbox, request: RunCode) -> CodeRun:
        """Begin to run code.

        NotFoundError for a context that is not there, InvalidRequestError for one of another language, BusyError when
        too many runs of the sandbox are in progress, SandboxEndedError.
        """
        sandbox.check_run(request)
        if sum(run.sandbox_id == sandbox.id for run, _ in self._active.values()) >= _ACTIVE_MAX:
            raise BusyError(f"{_ACTIVE_MAX} runs of sandbox {sandbox.id} are in progress", sandbox_id=sandbox.id)
        run_id = RunId(f"run-{secrets.token_hex(10)}")
        output_bytes = sandbox.limits.output_bytes
        run = CodeRun(run_id, sandbox.id, request, output_bytes=output_bytes, start_soon=self._group.start_soon)
        self._active[run.id] = (run, secrets.token_hex(16))
        self._group.start_soon(self._carry_out, sandbox, run)
        return run

    def get(self, sandbox: Sandbox, run_id: RunId) -> CodeRun:
        """A run that is in progress or kept; NotFoundError."""
        self._drop_old()
        found = self._active.get(run_id) or self._kept.get(run_id)
        if found is None or found[0].sandbox_id != sandbox.id:
            raise NotFoundError(f"sandbox {sandbox.id} has no run {run_id}, or not any more", field="run")
        return found[0]

    def nonce(self, run_id: RunId) -> str | None:
        """By which the guest knows a run in progress; None when there is none such."""
        found = self._active.get(run_id)
        return found[1] if found else None

    async def _carry_out(self, sandbox: Sandbox, run: CodeRun) -> None:
        try:
            async with sandbox.using() as guest:
                await self._run(sandbox, guest, run)
                for _ in range(_TURNS):
                    await anyio.lowlevel.checkpoint()
                await guest.spare.prepare()
        except MayflyError as error:
            if not run.finished.is_set():
                run.finish("error", failure=error_info(error))
        except Exception as error:  # noqa: BLE001 - what breaks here is one run's only, and must not end the node
            _log.exception("run broke", id=run.id)
            if not run.finished.is_set():
                run.finish("error", failure=error_info(MayflyError(f"internal error: {type(error).__name__}")))
        finally:
            if not run.finished.is_set():
                run.finish("error", failure=error_info(sandbox.ended_error()))
            self._keep(run)
            _write_log(sandbox, run)

    async def _run(self, sandbox: Sandbox, guest: Guest, run: CodeRun) -> None:
        request = run.request
        context = await sandbox.context_for(guest, request.context, request.language)
        language = sandbox.contexts[context]
        run.accept(context, language)
        started = time.perf_counter()
        decision = await self._scan(sandbox, run)
        run.stage("scan", started)
        if not decision.run:
            _refuse(run, decision)
            return
        started = time.perf_counter()
        end = await self._execute(sandbox, guest, run, context)
        run.stage("execute", started)
        run.finish_as(end)

    async def _scan(self, sandbox: Sandbox, run: CodeRun) -> Decision:
        code, asked, approved = run.request.code, sandbox.request, run.request.approve
        judge = partial(self._gate.judge, policy=asked.policy, image=sandbox.image, approved=approved)
        run.verdict, decision = await judge(code, run.language)
        if run.verdict.parse.startswith("syntax") and run.language == "python":
            plain = cell_source(code)
            if plain != code:  # it has magics, which are no Python
                run.verdict, decision = await judge(plain, "python")
        return decision

    async def _execute(self, sandbox: Sandbox, guest: Guest, run: CodeRun, context: ContextId) -> CodeEnd:
        """Run it in its turn. Should the guest not keep the deadline, the node does."""
        limits = sandbox.limits
        timeout_s = run.request.timeout_s or limits.timeout_s
        ahead = [other for other, _ in self._active.values() if other is not run and other.context == context]
        waits_s = sum(
            (other.request.timeout_s or limits.timeout_s) + _GRACE_S
            for other in ahead
            if other.sandbox_id == sandbox.id
        )
        request = CodeRequest(
            context_id=context,
            code=run.request.code,
            nonce=self._active[run.id][1],
            timeout_s=timeout_s,
            env=run.request.envs,
            output_bytes=limits.output_bytes,
            result_bytes=RESULT_BYTES,
            item_bytes=ITEM_BYTES,
        )
        end: CodeEnd | None = None
        with anyio.move_on_after(waits_s + timeout_s + _GRACE_S):
            end = await guest.run_code(request, on_event=run.take)
        if end is None:
            raise AgentLostError(f"the agent did not end a run of {timeout_s:g} s")
        return end

    def _keep(self, run: CodeRun) -> None:
        del self._active[run.id]
        self._kept[run.id] = (run, time.monotonic())
        self._kept_bytes += run.bytes
        self._drop_old()

    def _drop_old(self) -> None:
        oldest = time.monotonic() - _KEPT_S
        while self._kept:
            run, ended = next(iter(self._kept.values()))
            if ended >= oldest and (self._kept_bytes <= _KEPT_BYTES or len(self._kept) == 1):
                return
            del self._kept[run.id]
            self._kept_bytes -= run.bytes


def _refuse(run: CodeRun, decision: Decision) -> None:
    """Nothing is run. What is no Python is an error as Python would give it."""
    verdict = run.verdict
    if run.language == "python" and verdict is not None and verdict.parse.startswith("syntax"):
        run.refuse_syntax(verdict.findings[0].message if verdict.findings else "SyntaxError: invalid syntax")
        return
    missing = ", ".join(decision.missing)
    error = DeniedError(f"the policy asks for approval of {missing}", field="approve") if missing else None
    run.finish("denied", failure=error_info(error))


def _write_log(sandbox: Sandbox, run: CodeRun) -> None:
    execution = run.execution
    if execution is None:
        return
    if execution.stdout:
        sandbox.log.add("run", execution.stdout[-_LOG_CHARS:], stream="stdout", id=run.id)
    if execution.stderr:
        sandbox.log.add("run", execution.stderr[-_LOG_CHARS:], stream="stderr", id=run.id)
    tail = f": {execution.error.name}: {execution.error.value}" if execution.error else ""
    sandbox.log.add("run", f"{execution.status} in context {execution.context}{tail}", id=run.id)
