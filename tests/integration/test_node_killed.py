"""A node on this machine's own KVM, killed without a word: nothing of it may go on.

Guests need not run for this. Where KVM takes machines but does not run them, a launch hangs waiting for its agent,
and its VMM, jail and control groups are as real as anywhere.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mayfly import run
from mayfly.errors import MayflyError
from mayfly.host.cgroups import detect_cgroups
from mayfly.host.sockets import listens
from mayfly.images.store import Store
from mayfly.node.parts import jailer_options, node_artefacts
from mayfly.vmm.census import take_census
from mayfly.vmm.probe import device_problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mayfly.host.paths import StatePaths

pytestmark = [pytest.mark.kvm, pytest.mark.root]
_DEADLINE_S = 30.0


def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _DEADLINE_S
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {_DEADLINE_S:g} s: {what}")
        time.sleep(0.02)


@pytest.fixture
def state(ready_state: StatePaths, own_state_of: Callable[[StatePaths], StatePaths]) -> StatePaths:
    if os.geteuid() != 0:
        pytest.skip("root, which the jailer needs")
    if problem := device_problem():
        pytest.skip(f"KVM: {problem}")
    return own_state_of(ready_state)


@pytest.fixture
def node(state: StatePaths) -> Iterator[subprocess.Popen[bytes]]:
    env = {**os.environ, "MAYFLY_HOME": str(state.root)}
    with subprocess.Popen([sys.executable, "-m", "mayfly", "serve"], env=env, stderr=subprocess.DEVNULL) as process:
        try:
            _until(lambda: process.poll() is not None or listens(state.node_socket), "the node answers")
            yield process
        finally:
            process.kill()


def _launch_in_background(state: StatePaths, count: int) -> None:
    def launch() -> None:
        with contextlib.suppress(MayflyError):  # the node is killed under it
            run("print(1)", node=f"unix:{state.node_socket}", timeout_s=20)

    for _ in range(count):
        threading.Thread(target=launch, daemon=True).start()


def test_a_killed_node_leaves_no_process_jail_control_group_or_socket(
    state: StatePaths, node: subprocess.Popen[bytes]
) -> None:
    options = jailer_options(state, node_artefacts(Store(state), verify=False))
    _launch_in_background(state, 3)
    # at least one machine is there in full; others may be anywhere on their way
    _until(lambda: take_census(options).vmm_processes > 0, "a VMM runs")
    assert take_census(options).jails > 0
    node.send_signal(signal.SIGKILL)
    node.wait()

    def all_gone() -> bool:
        now = take_census(options)
        return (now.jails, now.cgroups, now.vmm_processes, now.mounts) == (0, 0, 0, 0)

    _until(all_gone, "everything is gone")
    _until(lambda: not state.node_socket.exists(), "the socket is gone")
    layout = detect_cgroups()
    assert [path for path in layout.directories(options.parent_cgroup) if any(path.glob("*-*"))] == []


def test_a_stopped_node_leaves_nothing_either(state: StatePaths, node: subprocess.Popen[bytes]) -> None:
    options = jailer_options(state, node_artefacts(Store(state), verify=False))
    _launch_in_background(state, 2)
    _until(lambda: take_census(options).vmm_processes > 0, "a VMM runs")
    node.send_signal(signal.SIGTERM)
    assert node.wait(_DEADLINE_S) == 0
    now = take_census(options)
    assert (now.jails, now.cgroups, now.vmm_processes, now.mounts) == (0, 0, 0, 0)
    assert not state.node_socket.exists()
    assert not any(path.exists() for path in options.cgroups.directories(options.parent_cgroup))


def test_what_a_dead_node_left_is_removed_at_the_next_start_which_says_so(state: StatePaths) -> None:
    options = jailer_options(state, node_artefacts(Store(state), verify=False))
    left = options.jails / options.firecracker.name / "ex-left" / "root"
    left.mkdir(parents=True)
    shutil.copy("/bin/true", left / "firecracker")
    env = {**os.environ, "MAYFLY_HOME": str(state.root)}
    command = [sys.executable, "-m", "mayfly", "serve"]
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE) as process:
        try:
            _until(lambda: listens(state.node_socket), "the node answers")
        finally:
            process.terminate()
        _, said = process.communicate(timeout=_DEADLINE_S)
    assert not left.exists()
    events = [json.loads(line) for line in said.splitlines() if line.startswith(b"{")]
    assert ["ex-left"] in [event.get("machines") for event in events]
    assert Path(f"/proc/{process.pid}").exists() is False
