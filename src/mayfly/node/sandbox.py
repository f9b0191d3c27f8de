"""One sandbox that keeps state: what is known of it, who uses it, and when it is to end."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Literal

import anyio
import msgspec

from mayfly.errors import (
    AgentLostError,
    BusyError,
    InvalidRequestError,
    MayflyError,
    NotFoundError,
    SandboxEndedError,
    SandboxLostError,
    VmmTimeoutError,
)
from mayfly.model import Stage
from mayfly.node.clock import ms_since, rfc3339
from mayfly.node.sandbox_log import SandboxLog
from mayfly.sandbox_model import ContextId, SandboxInfo

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from mayfly.guest.sandbox import Guest
    from mayfly.model import HostInfo
    from mayfly.node.sandbox_machine import MachineWish
    from mayfly.sandbox_model import ChangeTimeout, CodeLanguage, CreateSandbox, RunCode, SandboxId

__all__ = ["Sandbox", "as_lost"]

_CONTEXTS_MAX = 16
_EXIT_WAIT_S = 1.0


class Sandbox:
    """A sandbox, from the wish for it on. `Sandboxes` makes it and takes it to its end."""

    def __init__(self, sandbox_id: SandboxId, request: CreateSandbox, machine: MachineWish, host: HostInfo) -> None:
        self.id = sandbox_id
        self.request = request
        self.image = machine.image
        self.limits = machine.limits
        """What its machine and what runs in it may use; the size is the template's where one was named."""
        self.log = SandboxLog()
        self.contexts: dict[ContextId, CodeLanguage] = {}
        """The contexts that were made and not removed."""
        self.stages: list[Stage] = []
        self.ready = anyio.Event()
        """It runs, or will never."""
        self.begun = False
        """Whether it ever ran."""
        self.over = anyio.Event()
        """It has ended and nothing of it is left."""
        self.making = anyio.CancelScope()
        """Around its life; cancelled when its end is decided before it is ready."""
        self.failure: MayflyError | None = None
        """Why it could not be made."""
        self._template = machine.template
        self._host = host
        self._guest: Guest | None = None
        self._created = time.time()
        now = anyio.current_time()
        self._expires = now + request.timeout_s
        self._timeout_s = request.timeout_s
        self._idle_timeout_s = request.idle_timeout_s
        self._last_used = now
        self._uses: set[anyio.CancelScope] = set()
        self._changed = anyio.Event()
        self._context_lock = anyio.Lock()
        self._state: Literal["running", "ended", "lost"] = "running"
        self._reason: str | None = None
        self._ended: float | None = None

    @property
    def ending(self) -> bool:
        """Whether its end was decided."""
        return self._reason is not None

    def info(self) -> SandboxInfo:
        """What is known of it."""
        return SandboxInfo(
            id=self.id,
            state=self._state,
            image=self.image,
            template=self._template,
            lang=self.request.lang,
            created_at=rfc3339(self._created),
            expires_at=rfc3339(time.time() + self._expires - anyio.current_time()),
            timeout_s=self._timeout_s,
            idle_timeout_s=self._idle_timeout_s,
            limits=self.limits,
            metadata=self.request.metadata,
            policy=self.request.policy,
            reason=self._reason,
            ended_at=None if self._ended is None else rfc3339(self._ended),
            stages=tuple(self.stages),
            host=self._host,
        )

    # -- its life --------------------------------------------------------------------------------------------

    def begin(self, guest: Guest) -> None:
        """It can be used from now on."""
        self._guest = guest
        self.begun = True
        self._last_used = anyio.current_time()
        self.log.add("sandbox", "ready")
        self.ready.set()

    def end(self, reason: str, *, lost: bool = False) -> None:
        """Decide its end; what uses it is cut off. The first reason stands."""
        if self._reason is not None:
            return
        self._reason, self._state, self._ended = reason, "lost" if lost else "ended", time.time()
        self._guest = None
        self.log.add("sandbox", f"{self._state}: {reason}")
        for scope in self._uses:
            scope.cancel()
        if not self.ready.is_set():
            self.making.cancel()
        self._change()

    async def wait_end(self) -> None:
        """Returns when its end is decided, and decides it when its time is over."""
        while self._reason is None:
            now = anyio.current_time()
            idle_at = (now if self._uses else self._last_used) + self._idle_timeout_s
            if now >= self._expires:
                self.end(f"its time of {self._timeout_s:g} s was over")
            elif now >= idle_at:
                self.end(f"it was idle: nobody used it for {self._idle_timeout_s:g} s")
            else:
                changed = self._changed
                with anyio.move_on_after(min(self._expires, idle_at) - now):
                    await changed.wait()

    def change_timeout(self, change: ChangeTimeout) -> None:
        """Other times; what is None stays. SandboxEndedError when it is too late."""
        self._check()
        if change.timeout_s is not None:
            self._timeout_s = change.timeout_s
            self._expires = anyio.current_time() + change.timeout_s
        if change.idle_timeout_s is not None:
            self._idle_timeout_s = change.idle_timeout_s
        self._last_used = anyio.current_time()
        self._change()

    # -- its use ---------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def using(self) -> AsyncIterator[Guest]:
        """Its guest, for the block; the sandbox is not idle meanwhile.

        SandboxEndedError, also in the middle, when it ends; SandboxLostError when its microVM does. Every error of
        Mayfly's that leaves the block names the sandbox.
        """
        guest = self._check()
        scope = anyio.CancelScope()
        self._uses.add(scope)
        try:
            with scope, self._naming():
                try:
                    yield guest
                except (AgentLostError, VmmTimeoutError) as error:
                    await self._tell_end(error)
                    raise
            if scope.cancelled_caught:
                raise self.ended_error()
        finally:
            self._uses.discard(scope)
            self._last_used = anyio.current_time()

    def check_run(self, request: RunCode) -> None:
        """Whether such a run can begin: NotFoundError, InvalidRequestError, SandboxEndedError."""
        with self._naming():
            self._check()
            if request.context is None:
                return
            language = self.language_of(request.context)
            if request.language not in (None, language):
                raise InvalidRequestError(
                    f"context {request.context} speaks {language}, not {request.language}", field="language"
                )

    def language_of(self, context: str) -> CodeLanguage:
        """What a context speaks; NotFoundError."""
        language = self.contexts.get(ContextId(context))
        if language is None:
            raise NotFoundError(f"sandbox {self.id} has no context {context}", field="context", sandbox_id=self.id)
        return language

    async def context_for(self, guest: Guest, context: str | None, lang: CodeLanguage | None) -> ContextId:
        """The context that was asked for, or the default one of the language, made where there is none.

        NotFoundError when there is no such context.
        """
        if context is not None:
            self.language_of(context)
            return ContextId(context)
        lang = lang or self.request.lang
        chosen = ContextId("default" if lang == self.request.lang else f"default-{lang}")
        if chosen in self.contexts:
            return chosen
        async with self._context_lock:
            if chosen not in self.contexts:
                self.room_for_context()
                await guest.create_context(chosen, lang=lang, env=self.request.envs, pids=self.limits.pids)
                self.contexts[chosen] = lang
        return chosen

    def room_for_context(self) -> None:
        """BusyError when it has as many contexts as it may have."""
        if len(self.contexts) >= _CONTEXTS_MAX:
            raise BusyError(f"a sandbox has at most {_CONTEXTS_MAX} contexts", retryable=False)

    def ended_error(self) -> SandboxEndedError:
        """For whoever asks something of it after its end."""
        kind = SandboxLostError if self._state == "lost" else SandboxEndedError
        return kind(f"sandbox {self.id} has ended: {self._reason}", field="id", sandbox_id=self.id)

    def stage(self, name: str, started: float) -> None:
        """Note how long a part of its making took."""
        self.stages.append(Stage(name, ms_since(started)))

    def _check(self) -> Guest:
        if self._reason is not None:
            raise self.ended_error()
        if self._guest is None:
            raise BusyError(f"sandbox {self.id} is being made", sandbox_id=self.id)
        return self._guest

    @contextlib.contextmanager
    def _naming(self) -> Iterator[None]:
        try:
            yield
        except MayflyError as error:
            error.sandbox_id = error.sandbox_id or self.id
            raise

    async def _tell_end(self, error: MayflyError) -> None:
        """The agent is gone: where the whole sandbox is, say that instead. A machine's end is heard of a bit later."""
        with anyio.move_on_after(_EXIT_WAIT_S):
            while self._reason is None:
                await self._changed.wait()
        if self._reason is not None:
            raise self.ended_error() from error

    def _change(self) -> None:
        changed, self._changed = self._changed, anyio.Event()
        changed.set()


def as_lost(info: SandboxInfo, reason: str) -> SandboxInfo:
    """A record of a sandbox whose node is gone."""
    return msgspec.structs.replace(info, state="lost", reason=reason, ended_at=info.ended_at or rfc3339(time.time()))
