"""`AsyncSandbox`: a microVM that keeps its state for one caller, and all that can be done in it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Self, TypedDict, Unpack

import anyio
import msgspec

from mayfly.client.calls import SandboxCalls, about
from mayfly.client.code import CodeHeard, Contexts, follow_run, run_request
from mayfly.client.commands import AsyncCommands
from mayfly.client.discovery import find_node, running_node
from mayfly.client.files import AsyncFiles
from mayfly.client.ports import Forward, open_forward
from mayfly.client.terminal import AsyncPty
from mayfly.config import load_config
from mayfly.errors import MayflyError, NodeError, NotFoundError, SandboxEndedError, SandboxLostError
from mayfly.host.paths import state_paths
from mayfly.model import Limits
from mayfly.sandbox_model import ChangeTimeout, CreateSandbox, LogEntry, Metrics, SandboxId, SandboxInfo
from mayfly.validation import convert_values

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    from mayfly.client.address import NodeAddress
    from mayfly.client.code import CodeOptions
    from mayfly.client.core import NodeClient
    from mayfly.client.results import CodeExecution, Result
    from mayfly.sandbox_model import CodeError, CodeLanguage, ContextInfo

__all__ = ["AsyncSandbox", "SandboxOptions", "running_client"]

_CREATE_S = 240.0
"""Waiting for a place, launching on a slow machine, and a context that imports much."""
_KILL_S = 60.0
_SIZE = frozenset({"mem_mib", "vcpus", "scratch_mib"})
"""The limits that a template stands for."""
_OUTSIDE = "the sandbox is not open: make it by `create` or `connect`, or use it in its `with` block"


class SandboxOptions(TypedDict, total=False):
    """Options of a new sandbox; what is absent comes from the node, limits from the configuration.

    `image` names what it starts from, by default the language's. `template` is the beginning of a template's key and
    stands for image and size; limits that contradict it are refused, of a `Limits` those that are not its defaults.
    `lang` is the default context's language.
    It ends `timeout_s` after it was made, and when nobody asked anything of it for `idle_timeout_s`. `limits` are a
    `mayfly.Limits` or some of its fields, for the whole microVM; `limits.timeout_s` is what one run gets by default.
    `envs` are there for everything in it, `metadata` is yours, `policy` the scan's.
    """

    image: str
    template: str | None
    lang: CodeLanguage
    timeout_s: float
    idle_timeout_s: float
    limits: Limits | Mapping[str, Any]
    envs: Mapping[str, str]
    metadata: Mapping[str, str]
    policy: str


class AsyncSandbox:
    """A microVM of your own that keeps files, variables and processes until it ends.

    `async with AsyncSandbox() as sandbox` makes one and kills it at the block's end. `await AsyncSandbox.create()`
    makes one that lives on by itself until it is killed or its times are over, also when this program ends;
    `connect` finds it again. All methods raise NodeError where the node does not answer, SandboxEndedError and
    SandboxLostError once the sandbox has ended, and InvalidRequestError for impossible values.
    """

    def __init__(self, *, node: str | NodeAddress | None = None, **options: Unpack[SandboxOptions]) -> None:
        self._node = node
        self._request = _create_request(options)
        self._calls: SandboxCalls | None = None
        self._kills_at_exit = True
        self._forwards: list[Forward] = []
        self.files = AsyncFiles(self._live)
        """Files and directories in it."""
        self.commands = AsyncCommands(self._live)
        """Processes in it."""
        self.pty = AsyncPty(self._live)
        """Terminals in it."""

    @classmethod
    async def create(cls, *, node: str | NodeAddress | None = None, **options: Unpack[SandboxOptions]) -> Self:
        """Make a sandbox; a node is found, or started. CapacityError when the node is full.

        It lives until `kill`, its times, or the end of an `async with` block around it.
        """
        sandbox = cls(node=node, **options)
        await sandbox._open()
        return sandbox

    @classmethod
    async def connect(cls, sandbox_id: str, *, node: str | NodeAddress | None = None) -> Self:
        """A sandbox that runs already, by its id. A `with` block around it does not kill it.

        NotFoundError where the node knows no such sandbox, SandboxEndedError and SandboxLostError where it has ended.
        """
        sandbox = cls()
        sandbox._kills_at_exit = False
        sandbox._calls = SandboxCalls(await running_client(node), SandboxId(sandbox_id))
        info = await sandbox.info()
        if info.state != "running":
            kind = SandboxLostError if info.state == "lost" else SandboxEndedError
            raise kind(f"sandbox {sandbox_id} has ended: {info.reason or 'no reason is known'}", sandbox_id=sandbox_id)
        sandbox._calls.output_bytes = info.limits.output_bytes
        return sandbox

    @classmethod
    def attach(cls, sandbox_id: str, client: NodeClient, *, output_bytes: int = 1024 * 1024) -> Self:
        """As `connect`, for one in whatever state, at a node that is known; nothing is asked.

        `output_bytes` is what is kept of each stream of a command that is waited for.
        """
        sandbox = cls()
        sandbox._kills_at_exit = False
        sandbox._calls = SandboxCalls(client, SandboxId(sandbox_id), output_bytes=output_bytes)
        return sandbox

    @classmethod
    async def list(
        cls, *, state: str | None = "running", node: str | NodeAddress | None = None
    ) -> Sequence[SandboxInfo]:
        """The node's sandboxes, the newest first; `state` None gives those that have ended too, as far as kept."""
        client = await running_client(node)
        query = f"?state={state}" if state else ""
        found = await client.ask(
            "GET", f"/v1/sandboxes{query}", into=dict[str, list[SandboxInfo]], limit_bytes=1 << 26, deadline_s=30
        )
        return found.get("sandboxes", [])

    async def _open(self) -> None:
        client = await _found(self._node)
        info = await client.ask(
            "POST", "/v1/sandboxes", self._request, into=SandboxInfo, limit_bytes=1 << 20, deadline_s=_CREATE_S
        )
        self._calls = SandboxCalls(client, info.id, output_bytes=info.limits.output_bytes)

    async def __aenter__(self) -> Self:
        if self._calls is None:
            await self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with anyio.CancelScope(shield=True):
            try:
                if self._kills_at_exit:
                    with anyio.move_on_after(_KILL_S):
                        await self.kill()
            except MayflyError:
                if error is None:
                    raise
            finally:
                await self.close()

    def _live(self) -> SandboxCalls:
        if self._calls is None:
            raise NodeError(_OUTSIDE, retryable=False)
        return self._calls

    @property
    def id(self) -> SandboxId:
        """Its id, for `connect`."""
        return self._live().id

    async def info(self) -> SandboxInfo:
        """What it is, until when it lives, and, once it has ended, why."""
        return await self._live().ask("GET", "", into=SandboxInfo)

    async def kill(self) -> bool:
        """End it, and all that is in it; waits until it is gone. False when it had ended already."""
        calls = self._live()
        await self.close()
        try:
            before = await calls.ask("GET", "", into=SandboxInfo)
            await calls.ask("DELETE", "", into=SandboxInfo, deadline_s=_KILL_S)
        except (NotFoundError, SandboxEndedError):
            return False
        finally:
            calls.let_go()
        return before.state == "running"

    async def close(self) -> None:
        """Let go of it: forwarded ports and the connection to the node are closed; the sandbox itself lives on."""
        if self._calls is not None:
            self._calls.let_go()
        while self._forwards:
            await self._forwards.pop().aclose()

    async def set_timeout(self, timeout_s: float | None = None, *, idle_timeout_s: float | None = None) -> SandboxInfo:
        """New times: it ends `timeout_s` from now, and when idle for `idle_timeout_s`; None leaves one as it is."""
        body = convert_values({"timeout_s": timeout_s, "idle_timeout_s": idle_timeout_s}, ChangeTimeout)
        return await self._live().ask("POST", "/timeout", body, into=SandboxInfo)

    async def metrics(self) -> Metrics:
        """What it uses now: CPU, memory, disk, processes; as the guest says it."""
        return await self._live().ask("GET", "/metrics", into=Metrics)

    async def logs(self, *, start: int = 0) -> Sequence[LogEntry]:
        """What was done in it and what its code printed, from the entry `start` on; the newest 256 KiB are kept."""
        found = await self._live().ask("GET", "/logs", into=dict[str, Any], query={"from": start})
        return convert_values(found.get("entries", []), list[LogEntry])

    async def run_code(
        self,
        code: str,
        *,
        on_stdout: Callable[[str], object] | None = None,
        on_stderr: Callable[[str], object] | None = None,
        on_result: Callable[[Result], object] | None = None,
        on_error: Callable[[CodeError], object] | None = None,
        **options: Unpack[CodeOptions],
    ) -> CodeExecution:
        """Run code in a context, as a cell of a notebook: variables, imports and functions stay for the next one.

        What the code does wrong is in the result. The callbacks (functions or coroutine functions) hear of text,
        `Result` and error as they come. Cancelling interrupts the code; the context keeps its state.
        """
        request = run_request(code, options)
        heard = CodeHeard(on_stdout=on_stdout, on_stderr=on_stderr, on_result=on_result, on_error=on_error)
        with about(self._live().id):
            return await follow_run(self._live(), request, heard)

    async def create_context(
        self, language: CodeLanguage = "python", *, cwd: str | None = None, envs: Mapping[str, str] | None = None
    ) -> ContextInfo:
        """A further interpreter, with variables of its own. UnsupportedError where the image has no such language."""
        return await Contexts(self._live()).create(language, cwd, envs)

    async def list_contexts(self) -> Sequence[ContextInfo]:
        """The interpreters there are."""
        return await Contexts(self._live()).all()

    async def restart_context(self, context: str | ContextInfo = "default") -> None:
        """Begin it anew; its variables are gone."""
        await Contexts(self._live()).tell(context, "restart")

    async def remove_context(self, context: str | ContextInfo) -> None:
        """End it for good, and what runs in it."""
        await Contexts(self._live()).remove(context)

    async def interrupt(self, context: str | ContextInfo = "default") -> None:
        """As Ctrl-C to what runs in the context; its state is kept."""
        await Contexts(self._live()).tell(context, "interrupt")

    async def expose(self, port: int, *, host: str = "127.0.0.1", local_port: int = 0) -> Forward:
        """Make a port in the sandbox reachable here: `(await sandbox.expose(8000)).url`.

        Every connection to the local port goes to `port` of the sandbox's loopback, until the forward or the sandbox
        is closed. `local_port` 0 takes a free one. NodeError where the local port cannot be had.
        """
        forward = await open_forward(self._live(), port, host=host, local_port=local_port)
        self._forwards.append(forward)
        return forward

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._calls.id if self._calls else 'not open'})"


async def _found(node: str | NodeAddress | None) -> NodeClient:
    return await find_node(node, config=load_config(os.environ), paths=state_paths(os.environ))


async def running_client(node: str | NodeAddress | None) -> NodeClient:
    """A node that runs; none is started, since a new one has no sandboxes."""
    config, paths = load_config(os.environ), state_paths(os.environ)
    if node is not None:
        return await find_node(node, config=config, paths=paths)
    return await running_node(config, paths)


def _create_request(options: SandboxOptions) -> CreateSandbox:
    given: dict[str, Any] = dict(options)
    if unknown := set(given) - SandboxOptions.__optional_keys__:
        raise TypeError(f"a sandbox has no option {min(unknown)!r}")
    limits = given.pop("limits", None)
    usual = msgspec.structs.asdict(load_config(os.environ).limits)
    asked = msgspec.structs.asdict(limits) if isinstance(limits, Limits) else dict(limits or {})
    if given.get("template") is not None:
        usual = {name: value for name, value in usual.items() if name not in _SIZE}
        if isinstance(limits, Limits):  # what a `Limits` has of itself nobody asked for
            default = msgspec.structs.asdict(Limits())
            asked = {name: value for name, value in asked.items() if name not in _SIZE or value != default[name]}
    merged = {**usual, **asked}
    for name in ("envs", "metadata"):
        if name in given:
            given[name] = dict(given[name] or {})
    return convert_values({"limits": merged, **given}, CreateSandbox)
