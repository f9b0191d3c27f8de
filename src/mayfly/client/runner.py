"""One-shot programs: `run`, `Runner` and their asynchronous faces; one implementation, and a portal in front of it."""

from __future__ import annotations

import contextlib
import os
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypedDict, Unpack

import msgspec

from mayfly.client.discovery import find_node
from mayfly.client.text import TextRelay
from mayfly.config import load_config
from mayfly.errors import NodeError, NodeUnavailableError
from mayfly.host.eventloop import open_portal
from mayfly.host.paths import state_paths
from mayfly.model import Event, Execution, ExecutionRequest, Finished, Language, Limits, Output
from mayfly.validation import make_request

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from types import TracebackType

    from anyio.from_thread import BlockingPortal

    from mayfly.client.address import NodeAddress
    from mayfly.client.core import NodeClient
    from mayfly.config import Config
    from mayfly.host.paths import StatePaths

    OnText = Callable[[str], object]

__all__ = ["AsyncRunner", "RunOptions", "Runner", "arun", "run"]

_LIMIT_NAMES = frozenset(Limits.__struct_fields__)


class RunOptions(TypedDict, total=False):
    """Options of one run; what is absent comes from the configuration. Out-of-range values are refused.

    `lang` is `python` or `bash`, `stdin` the whole standard input, `policy` the scan's,
    `approve` ids of findings (`RULE@LINE:COLUMN`) where the policy asks. `timeout_s`, `mem_mib`,
    `vcpus`, `cpu_s`, `pids`, `output_bytes`, `scratch_mib`, `io_mbps` and `io_ops` are the fields of
    `mayfly.model.Limits`. `image` names the image to run in; None is the language's.
    """

    lang: Language
    timeout_s: float
    mem_mib: int
    vcpus: int
    cpu_s: float | None
    pids: int
    output_bytes: int
    scratch_mib: int
    io_mbps: int
    io_ops: int
    image: str | None
    args: Sequence[str]
    env: Mapping[str, str] | None
    stdin: str | None
    policy: str
    approve: Sequence[str]
    filename: str


def run(
    code: str,
    *,
    on_stdout: OnText | None = None,
    on_stderr: OnText | None = None,
    node: str | NodeAddress | None = None,
    **options: Unpack[RunOptions],
) -> Execution:
    """Run `code` in a microVM made for it, wait for its end, and return the result.

    What the program does wrong is in the result (`status`, `exit_code`). `on_stdout` and `on_stderr` get text as
    it comes, in another thread. `node` names a node (`unix:PATH`, `http://HOST:PORT`); by default one is found, or
    started. Raises InvalidRequestError, CapacityError, NodeError and, where a node must be started, SetupError and
    HostError.
    """
    work = partial(arun, code, on_stdout=on_stdout, on_stderr=on_stderr, node=node, **options)
    with open_portal() as portal:
        return _call(portal, work)


async def arun(
    code: str,
    *,
    on_stdout: OnText | None = None,
    on_stderr: OnText | None = None,
    node: str | NodeAddress | None = None,
    **options: Unpack[RunOptions],
) -> Execution:
    """`run` for asynchronous programs; the callbacks may be coroutine functions. Cancelling ends the program."""
    async with AsyncRunner(node=node) as runner:
        return await runner.run(code, on_stdout=on_stdout, on_stderr=on_stderr, **options)


class AsyncRunner:
    """A node and the options that its runs share: `async with AsyncRunner(mem_mib=512) as runner`.

    Each `run` is an execution of its own in a fresh microVM: files and variables of one run are not there in the
    next. What keeps its state between runs is `mayfly.AsyncSandbox`.
    """

    def __init__(self, *, node: str | NodeAddress | None = None, **options: Unpack[RunOptions]) -> None:
        self._node = node
        self._options = options
        self._config: Config = load_config(os.environ)
        self._paths: StatePaths = state_paths(os.environ)
        self._client: NodeClient | None = None

    async def __aenter__(self) -> Self:
        self._client = await self._find()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client = None

    async def run(
        self,
        code: str,
        *,
        on_stdout: OnText | None = None,
        on_stderr: OnText | None = None,
        **options: Unpack[RunOptions],
    ) -> Execution:
        """As `mayfly.arun`; `options` go before those of the runner."""
        if self._client is None:
            raise NodeError("the runner is used outside of its `with` block", retryable=False)
        request = _request(code, {**self._options, **options}, self._config)
        heard = on_stdout or on_stderr
        relay = TextRelay({"stdout": on_stdout, "stderr": on_stderr})
        on_event = partial(_relay, relay) if heard else None
        try:
            return await self._client.execute(request, on_event=on_event)
        except NodeUnavailableError:
            # It ended between two runs (idle nodes do); nothing was sent yet, so the run may be tried again.
            self._client = await self._find()
            return await self._client.execute(request, on_event=on_event)

    async def _find(self) -> NodeClient:
        return await find_node(self._node, config=self._config, paths=self._paths)


class Runner:
    """The blocking face of `AsyncRunner`: `with Runner(lang="bash") as runner: runner.run("uname -a")`.

    Each `run` is an execution of its own in a fresh microVM: files and variables of one run are not there in the
    next. What keeps its state between runs is `mayfly.Sandbox`.
    """

    def __init__(self, *, node: str | NodeAddress | None = None, **options: Unpack[RunOptions]) -> None:
        self._runner = AsyncRunner(node=node, **options)
        self._portal: BlockingPortal | None = None
        self._exits = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as exits:
            self._portal = exits.enter_context(open_portal())
            exits.enter_context(self._portal.wrap_async_context_manager(self._runner))
            self._exits = exits.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._portal = None
        self._exits.__exit__(kind, error, trace)

    def run(
        self,
        code: str,
        *,
        on_stdout: OnText | None = None,
        on_stderr: OnText | None = None,
        **options: Unpack[RunOptions],
    ) -> Execution:
        """As `mayfly.run`; `options` go before those of the runner."""
        if self._portal is None:
            raise NodeError("the runner is used outside of its `with` block", retryable=False)
        work = partial(self._runner.run, code, on_stdout=on_stdout, on_stderr=on_stderr, **options)
        return _call(self._portal, work)


async def _relay(relay: TextRelay, event: Event) -> None:
    if isinstance(event, Output):
        await relay.take(event)
    elif isinstance(event, Finished):
        await relay.finish()


def _call(portal: BlockingPortal, work: Callable[[], Awaitable[Execution]]) -> Execution:
    """Wait for `work` in the portal's loop; Ctrl-C ends it there too."""
    future = portal.start_task_soon(work)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


def _request(code: str, options: RunOptions, config: Config) -> ExecutionRequest:
    given: dict[str, Any] = dict(options)
    if unknown := set(given) - RunOptions.__optional_keys__:
        raise TypeError(f"run() got an unexpected keyword argument {min(unknown)!r}")
    limits = msgspec.structs.asdict(config.limits)
    limits |= {name: given.pop(name) for name in _LIMIT_NAMES & set(given)}
    given |= {"args": list(given.get("args") or ()), "env": dict(given.get("env") or {})}
    return make_request({"code": code, "limits": limits, **given})
