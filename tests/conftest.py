"""Fixtures of all layers, and the closing count of what was skipped and why."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from hypothesis import HealthCheck, settings

from mayfly.errors import MayflyError
from mayfly.host.eventloop import BACKEND_OPTIONS
from mayfly.host.paths import StatePaths, state_paths

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from mayfly.client.core import NodeClient
    from mayfly.model import Execution

_SKIPPED: Counter[str] = Counter()
_DOWN_DEADLINE_S = 60.0
_SETTLE_DEADLINE_S = 30.0
_REST_DEADLINE_S = 60.0
_REST_S = 1.0
_FDS_OF_WAITING = 4
_FDS_OF_READINESS = 4
"""As many machines may wait as before, but be more ready: less than one for each program that a test ran."""
_ON_THIS_HOST = {"integration", "performance"}
_RSS_MIB = 64
"""The allocator keeps what the largest answer took, several times over. That memory does not grow with the number of
answers is for tests/integration/test_client_large_files.py."""
_MACHINE_PARTS = ("jails", "cgroups", "vmm_processes", "mounts")


_PYTEST = os.getpid()
_EXIT = os._exit


def _exit_of_others(code: int) -> None:
    """Code under test that ended this process with 0 would pass for tests that all ran."""
    if os.getpid() == _PYTEST and code == 0:
        raise RuntimeError("a test tried to end pytest")
    _EXIT(code)


os._exit = _exit_of_others  # type: ignore[assignment]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and isinstance(report.longrepr, tuple):
        _SKIPPED[report.longrepr[2].removeprefix("Skipped: ")] += 1


@pytest.hookimpl(tryfirst=True)  # before xdist looks at the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that run machines or agents count what they leave, by user and by name: none runs beside its like.

    Machines in the emulated host are out of sight of those on this one.
    """
    here = "machines" if _kvm_runs_guests() else "agents"
    for item in items:
        if item.get_closest_marker("e2e"):
            item.add_marker(pytest.mark.xdist_group("machines"))
        elif item.path.parent.name in _ON_THIS_HOST:
            item.add_marker(pytest.mark.xdist_group(here))


def _kvm_runs_guests() -> bool:
    """As `mayfly setup` found it."""
    try:
        return json.loads((state_paths(os.environ).root / "kvm.json").read_bytes())["usable"] is not False
    except (OSError, ValueError, KeyError):
        return True


def pytest_terminal_summary(terminalreporter: Any) -> None:
    for reason, count in _SKIPPED.most_common():
        terminalreporter.write_line(f"{count} skipped, missing: {reason}")


@dataclass(frozen=True)
class Program:
    """One run to make of a live node; `options` are those of `mayfly.run`."""

    code: str
    options: dict[str, Any] = field(default_factory=dict)


class Outcomes:
    """What became of each program of a batch; asking for one that Mayfly could not run raises its error."""

    def __init__(self) -> None:
        self._all: dict[str, Execution | MayflyError] = {}

    def __setitem__(self, name: str, outcome: Execution | MayflyError) -> None:
        self._all[name] = outcome

    def __getitem__(self, name: str) -> Execution:
        outcome = self._all[name]
        if isinstance(outcome, MayflyError):
            raise outcome
        if outcome.error is not None:
            pytest.fail(f"{name}: {outcome.status} in stages {outcome.stages}: {outcome.error}")
        return outcome


settings.register_profile("mayfly", parent=settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("mayfly")


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """What asynchronous tests run in: the loop that Mayfly's own processes have."""
    return "asyncio", BACKEND_OPTIONS


@dataclass(frozen=True)
class LiveNode:
    """A real node that this test run started, in a state directory of its own."""

    paths: StatePaths

    @property
    def env(self) -> dict[str, str]:
        """Environment for `mayfly` commands that are to use it."""
        return {**os.environ, "MAYFLY_HOME": str(self.paths.root), "NO_COLOR": "1"}

    @property
    def address(self) -> str:
        """For `node=` arguments of the client."""
        return f"unix:{self.paths.node_socket}"

    def client(self) -> NodeClient:
        """A client with the node's token."""
        from mayfly.client.address import parse_address, read_token
        from mayfly.client.core import NodeClient

        return NodeClient(parse_address(self.address, token=read_token(self.paths.node_token)))

    def host(self) -> dict[str, Any]:
        """`GET /v1/host`."""
        return anyio.run(self.client().host)

    def census(self) -> dict[str, Any]:
        """What the node counts on its host now, besides the machines that wait for a claim."""
        found: dict[str, Any] = self.host()["census"]
        return found

    def settle(self) -> dict[str, Any]:
        """The census once no machine is left; a machine that stays fails the test."""
        deadline = time.monotonic() + _SETTLE_DEADLINE_S
        while any((census := self.census())[part] for part in _MACHINE_PARTS):
            if time.monotonic() > deadline:
                pytest.fail(f"something of a machine is left: {census}")
            time.sleep(0.1)
        return census

    def rest(self) -> dict[str, Any]:
        """As `settle`, once the machines that wait are as many and as ready as they will be."""
        deadline = time.monotonic() + _REST_DEADLINE_S
        last, now = None, self.settle()
        while time.monotonic() < deadline and (now["waiting"], now["node_fds"]) != last:
            last = now["waiting"], now["node_fds"]
            time.sleep(_REST_S)
            now = self.settle()
        return now

    def assert_flat(self, before: dict[str, Any]) -> None:
        """The node holds no more than `before` (from `rest`), but for what machines that wait for a claim need."""
        after = self.rest()
        more_waiting = max(0, after["waiting"] - before["waiting"])
        assert after["node_fds"] <= before["node_fds"] + _FDS_OF_READINESS + _FDS_OF_WAITING * more_waiting
        assert after["node_threads"] <= before["node_threads"] + 2
        assert after["node_rss_mib"] <= before["node_rss_mib"] + _RSS_MIB

    def start(self, *args: str, **options: Any) -> subprocess.Popen[bytes]:
        """`mayfly ARGS` in the background, with pipes."""
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": self.env}
        return subprocess.Popen([sys.executable, "-m", "mayfly", *args], **{**pipes, **options})

    def mayfly(self, *args: str, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        """`mayfly ARGS`, to its end; without `stdin` it has none."""
        source = subprocess.DEVNULL if stdin is None else subprocess.PIPE
        with self.start(*args, stdin=source) as process:
            try:
                out, err = process.communicate(stdin, timeout=240)
            except BaseException:
                process.kill()
                raise
        return subprocess.CompletedProcess(args, process.returncode, out, err)

    def run_all(self, programs: Mapping[str, Program], *, at_once: int = 2) -> Outcomes:
        """Run programs through the asynchronous client, several at once, each in a machine of its own."""
        return anyio.run(partial(self._run_all, programs, at_once))

    async def _run_all(self, programs: Mapping[str, Program], at_once: int) -> Outcomes:
        from mayfly import AsyncRunner

        outcomes, places = Outcomes(), anyio.Semaphore(at_once)
        async with AsyncRunner(node=self.client().address) as runner, anyio.create_task_group() as tasks:

            async def run(name: str, program: Program) -> None:
                async with places:
                    try:
                        outcomes[name] = await runner.run(program.code, **program.options)
                    except MayflyError as error:
                        outcomes[name] = error

            for name, program in programs.items():
                tasks.start_soon(run, name, program)
        return outcomes


@pytest.fixture(scope="session")
def program() -> type[Program]:
    """`program(CODE, {OPTIONS})`, for `LiveNode.run_all`."""
    return Program


def _end_sandboxes(namespace: dict[str, Any]) -> None:
    """What a document that failed half-way has left: other tests count machines."""
    from mayfly import Sandbox

    for value in namespace.values():
        if isinstance(value, Sandbox):
            with contextlib.suppress(MayflyError):
                value.kill()


@pytest.fixture
def run_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], int]:
    """Runs the Python of a document, block by block in one namespace, and compares what each prints with the text
    block right below it. Says how many blocks there were."""

    def run(page: Path) -> int:
        monkeypatch.chdir(tmp_path)
        namespace: dict[str, Any] = {"__name__": "__main__"}
        blocks = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
        for (lang, code), (next_lang, printed) in pairwise([*blocks, ("", "")]):
            if lang != "python":
                continue
            said = io.StringIO()
            try:
                with contextlib.redirect_stdout(said):
                    exec(compile(code, str(page), "exec"), namespace)  # noqa: S102 - our own documents
            except BaseException:
                _end_sandboxes(namespace)
                raise
            if next_lang == "text":
                # What one print ends with is not seen in a document.
                assert said.getvalue().rstrip("\n") == printed.rstrip("\n"), code
        return sum(lang == "python" for lang, _ in blocks)

    return run


@pytest.fixture(scope="session")
def ready_state() -> StatePaths:
    """The state directory that `mayfly setup` filled; tests that need it are skipped where it was not run."""
    from mayfly.images.store import Store

    paths = state_paths(os.environ)
    try:
        for kind in ("firecracker", "kernel", "image-python"):
            Store(paths).current(kind)
    except (MayflyError, OSError) as error:
        pytest.skip(f"microVM artefacts: {error}; run `mayfly setup`")
    return paths


@contextlib.contextmanager
def own_state(ready: StatePaths) -> Iterator[StatePaths]:
    """A state directory of the test's own that shares the ready store; its file system is the store's."""
    root = Path(tempfile.mkdtemp(prefix=".mayfly-test-", dir=ready.root.parent))
    try:
        (root / "store").symlink_to(ready.store)
        if (ready.root / "kvm.json").exists():
            shutil.copy(ready.root / "kvm.json", root / "kvm.json")
        yield StatePaths(root).make()
    finally:
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def own_state_of() -> Iterator[Callable[[StatePaths], StatePaths]]:
    """Makes state directories for one test, each sharing the store of the one it is given."""
    with contextlib.ExitStack() as stack:
        yield lambda ready: stack.enter_context(own_state(ready))


@pytest.fixture(scope="session")
def live_node(ready_state: StatePaths) -> Iterator[LiveNode]:
    """One real node for the whole run: on this machine where KVM works, else in an emulated host."""
    from mayfly.node.bringup import ensure_node

    with own_state(ready_state) as paths:
        ensure_node(paths, idle_exit_s=3600)
        try:
            node = LiveNode(paths)
            made = node.mayfly("template", "build")  # what is tested is what users meet: clones that wait
            assert made.returncode == 0, made.stderr
            yield node
            node.settle()
        finally:
            stop_node(paths)


@pytest.fixture(scope="session")
def live() -> type[LiveNode]:
    """`live(paths)`: the node of another state directory, which the test starts and ends itself."""
    return LiveNode


@pytest.fixture
def settled(live_node: LiveNode) -> Iterator[LiveNode]:
    """The live node; the test fails when it leaves anything of a machine there."""
    yield live_node
    live_node.settle()


def stop_node(paths: StatePaths) -> None:
    """End the node of a state directory, whichever kind it is, and see that it took everything with it."""
    from mayfly.host.locks import holder, is_locked

    lock = paths.run / "node.lock"
    pid = holder(lock)
    if pid is not None:
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + _DOWN_DEADLINE_S
    while is_locked(lock):
        if time.monotonic() > deadline:
            pytest.fail(f"the node {pid} did not end within {_DOWN_DEADLINE_S:g} s")
        time.sleep(0.05)
    left = [path.name for path in (paths.node_socket, paths.node_token, paths.run / "host.json") if path.exists()]
    if left:
        pytest.fail(f"the node left {left} in {paths.run}")
