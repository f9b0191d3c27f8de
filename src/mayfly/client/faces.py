"""`Sandbox`: the blocking face of `AsyncSandbox`, and of the files and contexts in it.

No logic of its own: each method waits, in the calling thread, for its asynchronous namesake, which runs in the
process's shared loop. Callbacks are called in the thread that waits.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self, Unpack, overload

from mayfly.client.blocking import Callbacks, call, iterate, shared_portal
from mayfly.client.processes import Commands, Pty
from mayfly.client.sandbox import AsyncSandbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path
    from types import TracebackType

    from mayfly.client.address import NodeAddress
    from mayfly.client.code import CodeOptions
    from mayfly.client.files import AsyncFiles, Content
    from mayfly.client.ports import Forward
    from mayfly.client.results import CodeExecution, Result
    from mayfly.client.sandbox import SandboxOptions
    from mayfly.sandbox_model import (
        CodeError,
        CodeLanguage,
        ContextInfo,
        FileEvent,
        FileInfo,
        LogEntry,
        Metrics,
        SandboxId,
        SandboxInfo,
    )

__all__ = ["Files", "Sandbox"]


class Files:
    """Files of one sandbox, see `AsyncFiles`. Paths are absolute, or below `/home/user`."""

    def __init__(self, core: AsyncFiles) -> None:
        self._core = core

    @overload
    def read(self, path: str, *, format: Literal["text"] = "text") -> str: ...
    @overload
    def read(self, path: str, *, format: Literal["bytes"]) -> bytes: ...
    def read(self, path: str, *, format: Literal["text", "bytes"] = "text") -> str | bytes:  # noqa: A002 - as E2B has it
        """A whole file of at most 512 MiB, as text (UTF-8, what is none is replaced) or as bytes."""
        work: Any = partial(self._core.read, path, format=format)
        found: str | bytes = call(work)
        return found

    def stream(self, path: str, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """A file's bytes as they come, from `offset` on and at most `length`."""
        return iterate(partial(self._core.open_stream, path, offset=offset, length=length))

    def write(self, path: str, content: Content, *, mode: int | None = None, append: bool = False) -> FileInfo:
        """Write a file, and the directories above it; `content` is text, bytes, an open binary file or an iterable."""
        return call(partial(self._core.write, path, content, mode=mode, append=append))

    def list(self, path: str = ".", *, depth: int = 1) -> Sequence[FileInfo]:
        """What is in a directory, `depth` levels down (1 to 32), sorted by path; at most 10,000 entries."""
        return call(partial(self._core.list, path, depth=depth))

    def info(self, path: str) -> FileInfo:
        """What is there: kind, size, rights, times; of a link, the link."""
        return call(partial(self._core.info, path))

    def exists(self, path: str) -> bool:
        """Whether anything is there."""
        return call(partial(self._core.exists, path))

    def make_dir(self, path: str, *, parents: bool = True) -> FileInfo:
        """Make a directory; with `parents` those above it too, and one that is there is no error."""
        return call(partial(self._core.make_dir, path, parents=parents))

    def rename(self, path: str, to: str) -> FileInfo:
        """Give it another name; a file of that name is replaced."""
        return call(partial(self._core.rename, path, to))

    def remove(self, path: str, *, recursive: bool = False) -> None:
        """Remove a file, a link or an empty directory; with `recursive` a directory with all that is in it."""
        call(partial(self._core.remove, path, recursive=recursive))

    def watch(self, path: str, *, recursive: bool = False) -> AbstractContextManager[Iterator[FileEvent]]:
        """What happens in a directory, from when the block is entered: `with … as events`."""
        return _Watch(self._core, path, recursive=recursive)

    def upload(
        self, local: str | Path, remote: str = ".", *, on_file: Callable[[str], object] | None = None
    ) -> Sequence[str]:
        """Copy a file, a directory or a glob (`data/*.csv`) into the sandbox; returns the paths that were written."""
        heard = Callbacks()
        return heard.run(partial(self._core.upload, local, remote, on_file=heard.here(on_file)))

    def download(
        self, remote: str, local: str | Path = ".", *, on_file: Callable[[str], object] | None = None
    ) -> Sequence[Path]:
        """Copy a file, a directory or a glob (`out/*.png`) of the sandbox here; returns the paths that were written."""
        heard = Callbacks()
        return heard.run(partial(self._core.download, remote, local, on_file=heard.here(on_file)))


class _Watch:
    def __init__(self, core: AsyncFiles, path: str, *, recursive: bool) -> None:
        self._opened = shared_portal().wrap_async_context_manager(core.watch(path, recursive=recursive))

    def __enter__(self) -> Iterator[FileEvent]:
        events = self._opened.__enter__()
        ended: Any = object()

        async def advance() -> Any:
            return await anext(events, ended)

        return iter(partial(call, advance), ended)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return self._opened.__exit__(kind, error, trace)


class Sandbox:
    """A microVM of your own that keeps files, variables and processes until it ends.

    `with Sandbox() as sandbox` makes one and kills it at the block's end. `Sandbox.create()` makes one that lives on
    by itself until it is killed or its times are over, also when this program ends; `connect` finds it again. All
    methods raise NodeError where the node does not answer, SandboxEndedError and SandboxLostError once the sandbox has
    ended, and InvalidRequestError for impossible values.
    """

    def __init__(self, *, node: str | NodeAddress | None = None, **options: Unpack[SandboxOptions]) -> None:
        self._take(AsyncSandbox(node=node, **options))

    def _take(self, core: AsyncSandbox) -> None:
        self._core = core
        self.files = Files(core.files)
        """Files and directories in it."""
        self.commands = Commands(core.commands)
        """Processes in it."""
        self.pty = Pty(core.pty)
        """Terminals in it."""

    @classmethod
    def create(cls, *, node: str | NodeAddress | None = None, **options: Unpack[SandboxOptions]) -> Self:
        """Make a sandbox; a node is found, or started. CapacityError when the node is full.

        It lives until `kill`, its times, or the end of a `with` block around it.
        """
        sandbox = cls(node=node, **options)
        call(sandbox._core.__aenter__)
        return sandbox

    @classmethod
    def connect(cls, sandbox_id: str, *, node: str | NodeAddress | None = None) -> Self:
        """A sandbox that runs already, by its id. A `with` block around it does not kill it.

        NotFoundError where the node knows no such sandbox, SandboxEndedError and SandboxLostError where it has ended.
        """
        sandbox = cls(node=node)
        sandbox._take(call(partial(AsyncSandbox.connect, sandbox_id, node=node)))
        return sandbox

    @classmethod
    def list(cls, *, state: str | None = "running", node: str | NodeAddress | None = None) -> Sequence[SandboxInfo]:
        """The node's sandboxes, the newest first; `state` None gives those that have ended too, as far as kept."""
        return call(partial(AsyncSandbox.list, state=state, node=node))

    def __enter__(self) -> Self:
        call(self._core.__aenter__)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        call(partial(self._core.__aexit__, kind, error, trace))

    @property
    def id(self) -> SandboxId:
        """Its id, for `connect`."""
        return self._core.id

    def info(self) -> SandboxInfo:
        """What it is, until when it lives, and, once it has ended, why."""
        return call(self._core.info)

    def kill(self) -> bool:
        """End it, and all that is in it; waits until it is gone. False when it had ended already."""
        return call(self._core.kill)

    def close(self) -> None:
        """Let go of it: forwarded ports are closed; the sandbox itself lives on."""
        call(self._core.close)

    def set_timeout(self, timeout_s: float | None = None, *, idle_timeout_s: float | None = None) -> SandboxInfo:
        """New times: it ends `timeout_s` from now, and when idle for `idle_timeout_s`; None leaves one as it is."""
        return call(partial(self._core.set_timeout, timeout_s, idle_timeout_s=idle_timeout_s))

    def metrics(self) -> Metrics:
        """What it uses now: CPU, memory, disk, processes; as the guest says it."""
        return call(self._core.metrics)

    def logs(self, *, start: int = 0) -> Sequence[LogEntry]:
        """What was done in it and what its code printed, from the entry `start` on; the newest 256 KiB are kept."""
        return call(partial(self._core.logs, start=start))

    def run_code(
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

        What the code does wrong is in the result. The callbacks hear of text, `Result` and error as they come, in this
        thread. Ctrl-C interrupts the code; the context keeps its state.
        """
        heard = Callbacks()
        work = partial(
            self._core.run_code,
            code,
            on_stdout=heard.here(on_stdout),
            on_stderr=heard.here(on_stderr),
            on_result=heard.here(on_result),
            on_error=heard.here(on_error),
            **options,
        )
        return heard.run(work)

    def create_context(
        self, language: CodeLanguage = "python", *, cwd: str | None = None, envs: Mapping[str, str] | None = None
    ) -> ContextInfo:
        """A further interpreter, with variables of its own. UnsupportedError where the image has no such language."""
        return call(partial(self._core.create_context, language, cwd=cwd, envs=envs))

    def list_contexts(self) -> Sequence[ContextInfo]:
        """The interpreters there are."""
        return call(self._core.list_contexts)

    def restart_context(self, context: str | ContextInfo = "default") -> None:
        """Begin it anew; its variables are gone."""
        call(partial(self._core.restart_context, context))

    def remove_context(self, context: str | ContextInfo) -> None:
        """End it for good, and what runs in it."""
        call(partial(self._core.remove_context, context))

    def interrupt(self, context: str | ContextInfo = "default") -> None:
        """As Ctrl-C to what runs in the context; its state is kept."""
        call(partial(self._core.interrupt, context))

    def expose(self, port: int, *, host: str = "127.0.0.1", local_port: int = 0) -> Forward:
        """Make a port in the sandbox reachable here: `sandbox.expose(8000).url`, until it or the sandbox is closed."""
        return call(partial(self._core.expose, port, host=host, local_port=local_port))

    def __repr__(self) -> str:
        return repr(self._core).replace("AsyncSandbox", "Sandbox", 1)
