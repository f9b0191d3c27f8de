"""Code in a sandbox's contexts: runs that are followed to their end, and the contexts themselves."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, TypedDict

import anyio
import msgspec

from mayfly.client.calls import Stream
from mayfly.client.results import execution_of, result_of
from mayfly.client.text import TextRelay
from mayfly.errors import MayflyError, NodeError
from mayfly.sandbox_model import (
    CodeAccepted,
    CodeErrorEvent,
    CodeEvent,
    CodeFinished,
    CodeLanguage,
    CodeOutput,
    CodeResultEvent,
    ContextInfo,
    CreateContext,
    RunCode,
)
from mayfly.validation import convert_values

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mayfly.client.calls import SandboxCalls
    from mayfly.client.results import CodeExecution, Result
    from mayfly.sandbox_model import CodeError, RunId

__all__ = ["CodeHeard", "CodeOptions", "Contexts", "context_id", "follow_run", "run_request"]

_EVENTS = msgspec.json.Decoder(CodeEvent)
_RESULTS_BYTES = 16 * 1024 * 1024
_ESCAPED = 6
"""JSON may write one byte as six."""
_INTERRUPT_S = 5.0
_START_S = 120.0


class CodeOptions(TypedDict, total=False):
    """Options of `run_code`; what is absent is the sandbox's.

    `language` is `python`, `javascript` or `bash` and chooses that language's default context; `context` names
    another one. `envs` are set for this run only. After `timeout_s` the code is interrupted. `approve` names findings
    of the scan (`RULE@LINE:COLUMN`) that you take responsibility for, where the policy asks.
    """

    language: CodeLanguage
    context: str | ContextInfo
    envs: Mapping[str, str] | None
    timeout_s: float
    approve: Sequence[str]


class CodeHeard(msgspec.Struct, frozen=True, kw_only=True):
    """Who hears of a run while it happens; plain functions or coroutine functions."""

    on_stdout: Any = None
    on_stderr: Any = None
    on_result: Any = None
    on_error: Any = None

    def mapped(self, change: Callable[[Any], Any]) -> CodeHeard:
        """The same with every listener changed."""
        return CodeHeard(**{name: change(getattr(self, name)) for name in self.__struct_fields__})


def context_id(context: str | ContextInfo) -> str:
    """The id of a context that was given by id or as what `create_context` returned."""
    return context.id if isinstance(context, ContextInfo) else context


def run_request(code: str, options: CodeOptions) -> RunCode:
    """The request, checked as the node checks it; InvalidRequestError naming the field."""
    given: dict[str, Any] = dict(options)
    if unknown := set(given) - CodeOptions.__optional_keys__:
        raise TypeError(f"run_code() got an unexpected keyword argument {min(unknown)!r}")
    if given.get("context") is not None:
        given["context"] = context_id(given["context"])
    given |= {"envs": dict(given.get("envs") or {}), "approve": list(given.get("approve") or ())}
    return convert_values({"code": code, **given}, RunCode)


async def follow_run(calls: SandboxCalls, request: RunCode, heard: CodeHeard) -> CodeExecution:
    """Start a run and follow it to its end, over dropped connections; cancelling interrupts it."""
    started: list[CodeAccepted] = []

    def resume(event: Any) -> str | None:
        return f"/runs/{started[0].id}/events?from={event.offset + 1}" if started else None

    stream = Stream(
        method="POST",
        path="/runs?stream=true",
        body=request,
        decoder=_EVENTS,
        resume=resume,
        line_bytes=2 * _ESCAPED * calls.output_bytes + _ESCAPED * _RESULTS_BYTES + (4 << 20),
        is_last=lambda event: isinstance(event, CodeFinished),
    )
    relay = TextRelay({"stdout": heard.on_stdout, "stderr": heard.on_stderr})
    try:
        async with contextlib.aclosing(calls.events(stream)) as events:
            async for event in events:
                if isinstance(event, CodeAccepted):
                    started.append(event)
                elif isinstance(event, CodeFinished):
                    await relay.finish()
                    return execution_of(event.execution)
                else:
                    await _tell(event, heard, relay)
    except (anyio.get_cancelled_exc_class(), Exception) as error:
        if started and not isinstance(error, MayflyError):
            await _interrupt(calls, started[0].context, started[0].id)
        raise
    raise NodeError("the stream of the run ended without its end", sandbox_id=calls.id)


async def _tell(event: Any, heard: CodeHeard, relay: TextRelay) -> None:
    if isinstance(event, CodeOutput):
        await relay.take(event)
    elif isinstance(event, CodeResultEvent) and heard.on_result is not None:
        await _called(heard.on_result, result_of(event.result))
    elif isinstance(event, CodeErrorEvent) and heard.on_error is not None:
        await _called(heard.on_error, event.error)


async def _called(callback: Callable[[Any], object], value: Result | CodeError) -> None:
    import inspect

    outcome = callback(value)
    if inspect.isawaitable(outcome):
        await outcome


async def _interrupt(calls: SandboxCalls, context: str, run: RunId) -> None:
    """Nobody waits for the run any more: it is interrupted, its context keeps its state."""
    with anyio.move_on_after(_INTERRUPT_S, shield=True), contextlib.suppress(MayflyError):
        await calls.ask("POST", f"/contexts/{context}/interrupt", into=type(None), query={"run": run})


class Contexts:
    """The contexts of one sandbox."""

    def __init__(self, calls: SandboxCalls) -> None:
        self._calls = calls

    async def create(
        self, language: CodeLanguage, cwd: str | None = None, envs: Mapping[str, str] | None = None
    ) -> ContextInfo:
        """`POST /contexts`."""
        body = convert_values({"lang": language, "cwd": cwd, "envs": dict(envs or {})}, CreateContext)
        return await self._calls.ask("POST", "/contexts", body, into=ContextInfo, deadline_s=_START_S)

    async def all(self) -> list[ContextInfo]:
        """`GET /contexts`."""
        found = await self._calls.ask("GET", "/contexts", into=dict[str, list[ContextInfo]])
        return found.get("contexts", [])

    async def tell(self, context: str | ContextInfo, what: str) -> None:
        """`POST /contexts/{id}/restart` and `/interrupt`."""
        path = f"/contexts/{_quoted(context)}/{what}"
        await self._calls.ask("POST", path, into=type(None), deadline_s=_START_S)

    async def remove(self, context: str | ContextInfo) -> None:
        """`DELETE /contexts/{id}`."""
        await self._calls.ask("DELETE", f"/contexts/{_quoted(context)}", into=type(None))


def _quoted(context: str | ContextInfo) -> str:
    from urllib.parse import quote

    return quote(context_id(context), safe="")
