"""The node's side of the scan: pre-started workers, a deadline on every wait, a bounded cache of verdicts.

Whatever goes wrong with a worker (it dies, hangs, answers nonsense) is the verdict `unparseable`, never `allow`; the
worker is replaced.
"""

from __future__ import annotations

import os
import socket
import sys
from collections import OrderedDict
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import structlog

from mayfly.errors import HostError, ProtocolError
from mayfly.host.process import Child, spawn
from mayfly.model import CODE_MAX_BYTES, Verdict
from mayfly.scan import SCANNER_VERSION, unparseable
from mayfly.scan.wire import HEADER_BYTES, MAX_REPLY_BYTES, Reply, Request, body_length, decode, encode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mayfly.scan import Manifest, Policy, ScanLanguage

__all__ = ["Scanner", "open_scanner"]

_log = structlog.get_logger(__name__)
_Key = tuple[bytes, str, str, str, str, str]
_NAME_CHARS = 1024


class _WorkerGoneError(Exception):
    """The worker closed its end or said something else than a reply."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a worker made of a program: `fit` for another one, and whether to try `again`."""

    verdict: Verdict
    fit: bool
    again: bool


@dataclass(frozen=True, slots=True)
class _Job:
    """What a worker is asked."""

    code: bytes
    lang: ScanLanguage
    policy: Policy
    manifest: Manifest | None
    file_name: str

    @property
    def key(self) -> _Key:
        """What the verdict depends on; the file's name only where a layer may look at it."""
        digest = self.manifest.digest if self.manifest else ""
        name = self.file_name if self.policy.layers else ""
        return (sha256(self.code).digest(), self.lang, self.policy.version, digest, SCANNER_VERSION, name)


class _Worker:
    """One worker process and the socket to it."""

    def __init__(self) -> None:
        own, theirs = socket.socketpair()
        try:
            self.child: Child = spawn(
                [sys.executable, "-P", "-m", "mayfly.scan.worker"],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                env=_worker_env(),
                cwd="/",
            )
        except HostError:
            own.close()
            raise
        finally:
            theirs.close()
        own.setblocking(False)
        self.sock = own
        self.ready = False
        self.served = 0
        self._policy = ""
        self._manifest: str | None = ""

    async def wait_ready(self) -> None:
        """Wait for its first message."""
        if not self.ready:
            await self._receive()
            self.ready = True

    async def ask(self, job: _Job) -> Verdict:
        """Send one program and wait for its verdict. `_WorkerGoneError` when none comes."""
        manifest_digest = job.manifest.digest if job.manifest else None
        request = Request(
            source=job.code,
            lang=job.lang,
            policy=job.policy if job.policy.version != self._policy else None,
            manifest=job.manifest if manifest_digest != self._manifest else None,
            file_name=job.file_name,
            no_manifest=job.manifest is None,
        )
        await self._send(encode(request))
        self._policy, self._manifest = job.policy.version, manifest_digest
        verdict = (await self._receive()).verdict
        if verdict is None:
            raise _WorkerGoneError
        self.served += 1
        return verdict

    async def _send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[self.sock.send(view) :]
            except BlockingIOError:
                await anyio.wait_writable(self.sock)
            except OSError as error:
                raise _WorkerGoneError from error

    async def _receive(self) -> Reply:
        try:
            length = body_length(await self._exactly(HEADER_BYTES), MAX_REPLY_BYTES)
            return decode(await self._exactly(length), Reply)
        except ProtocolError as error:
            raise _WorkerGoneError from error

    async def _exactly(self, count: int) -> bytes:
        parts = bytearray()
        while len(parts) < count:
            try:
                part = self.sock.recv(min(count - len(parts), 1 << 16))
            except BlockingIOError:
                await anyio.wait_readable(self.sock)
                continue
            except OSError as error:
                raise _WorkerGoneError from error
            if not part:
                raise _WorkerGoneError
            parts += part
        return bytes(parts)

    async def aclose(self) -> None:
        """Kill it and wait for its end, even when cancelled. Idempotent."""
        if self.sock.fileno() < 0:
            return
        with anyio.CancelScope(shield=True):
            self.sock.close()
            self.child.kill()
            await self.child.wait()


def _worker_env() -> dict[str, str]:
    """Only what Python needs to find Mayfly where this process found it."""
    import mayfly

    places = [str(Path(place).parent) for place in mayfly.__path__] + [p for p in sys.path if p]
    env = {"PYTHONPATH": os.pathsep.join(dict.fromkeys(places)), "PATH": os.defpath, "LC_ALL": "C.UTF-8"}
    return env | {"PYTHONDONTWRITEBYTECODE": "1"}


class Scanner:
    """Verdicts from worker processes. Made by `open_scanner`; safe to use from many tasks at once."""

    def __init__(self, *, workers: int, deadline_s: float, start_deadline_s: float, cache_size: int) -> None:
        self._deadline_s = deadline_s
        self._start_deadline_s = start_deadline_s
        self._cache: OrderedDict[_Key, Verdict] = OrderedDict()
        self._cache_size = cache_size
        self._slots = anyio.Semaphore(workers)
        self._idle: list[_Worker | None] = [None] * workers
        self._all: set[_Worker] = set()
        self._closed = False

    def prestart(self) -> None:
        """Start the workers that do not run; does not wait for them. HostError when they cannot be started."""
        self._idle = [worker or self._start() for worker in self._idle]

    def _start(self) -> _Worker:
        worker = _Worker()
        self._all.add(worker)
        return worker

    async def scan(
        self,
        code: bytes,
        lang: ScanLanguage,
        policy: Policy,
        manifest: Manifest | None = None,
        *,
        file_name: str = "",
    ) -> Verdict:
        """The verdict on `code`, from the cache where it is known. Never raises for what the program is.

        `file_name` is the program's name as its user knows it, for layers with rules about certain files.
        """
        if len(code) > CODE_MAX_BYTES:
            message = f"the program has more than {CODE_MAX_BYTES} bytes, the most that are taken"
            return unparseable(message, kind="size")
        name = file_name[-_NAME_CHARS:].encode("utf-8", "replace").decode("utf-8")
        job = _Job(code, lang, policy, manifest, name)
        key = job.key
        if (known := self._cache.get(key)) is not None:
            self._cache.move_to_end(key)
            return known
        verdict = await self._ask(job)
        if not verdict.parse.startswith("limit"):
            self._cache[key] = verdict
            while len(self._cache) > self._cache_size:
                self._cache.popitem(last=False)
        return verdict

    async def _ask(self, job: _Job) -> Verdict:
        """One worker's answer. What a used worker fails at is tried once more in a fresh one."""
        async with self._slots:
            for attempt in range(2):
                if self._closed:
                    break
                worker = self._idle.pop()
                answer = _Answer(unparseable("the scan was cancelled"), fit=False, again=False)
                try:
                    worker = worker or self._start()
                    answer = await self._ask_worker(worker, job)
                except HostError as error:
                    return unparseable(f"no scan worker could be started: {error}")
                finally:
                    await self._put_back(worker, keep=answer.fit)
                if attempt or not answer.again:
                    return answer.verdict
            return unparseable("the scanner is closed")

    async def _ask_worker(self, worker: _Worker, job: _Job) -> _Answer:
        """One try. A program that takes too long gets no second one; a used worker's exhaustion proves nothing."""
        used = worker.served > 0
        try:
            with anyio.fail_after(self._start_deadline_s):
                await worker.wait_ready()
            with anyio.fail_after(self._deadline_s):
                verdict = await worker.ask(job)
        except TimeoutError:
            return _Answer(unparseable(f"the scan took longer than {self._deadline_s:g} s"), fit=False, again=False)
        except _WorkerGoneError:
            return _Answer(unparseable("the scan worker ended while it worked"), fit=False, again=True)
        exhausted = verdict.parse.startswith("limit")
        return _Answer(verdict, fit=not exhausted, again=exhausted and used)

    async def _put_back(self, worker: _Worker | None, *, keep: bool) -> None:
        """A worker that did not answer is killed and another takes its place."""
        if keep and worker is not None and not self._closed:
            self._idle.append(worker)
            return
        self._idle.append(None)
        if worker is not None:
            self._all.discard(worker)
            await worker.aclose()
            if not self._closed:
                _log.warning("scan_worker_replaced", pid=worker.child.pid, exit_code=worker.child.exit_code)
                try:
                    self.prestart()
                except HostError as error:
                    _log.warning("scan_worker_not_started", error=str(error))

    async def aclose(self) -> None:
        """End every worker. Idempotent."""
        self._closed = True
        while self._all:
            await self._all.pop().aclose()


@asynccontextmanager
async def open_scanner(
    *, workers: int = 1, deadline_s: float = 10.0, start_deadline_s: float = 60.0, cache_size: int = 1024
) -> AsyncIterator[Scanner]:
    """A scanner whose workers are started now and ended with the block. HostError when they cannot be started."""
    scanner = Scanner(workers=workers, deadline_s=deadline_s, start_deadline_s=start_deadline_s, cache_size=cache_size)
    try:
        scanner.prestart()
        yield scanner
    finally:
        await scanner.aclose()
