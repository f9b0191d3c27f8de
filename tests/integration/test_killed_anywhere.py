"""Nodes on this machine's KVM, killed at random moments under load: nothing of them may stay, whenever it was.

Guests need not run for this: clones are restored and destroyed paused, from a snapshot of a machine that was paused
before its first instruction mattered. Jails, control groups, user ids, VMMs, the pool's filling, template builds and
the janitor are the real ones.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest

from mayfly.images.store import Store
from mayfly.node.parts import jailer_options, node_artefacts
from mayfly.pool.retention import KIND
from mayfly.vmm.census import take_census
from mayfly.vmm.leftovers import remove_leftovers, remove_parents
from mayfly.vmm.probe import device_problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mayfly.host.paths import StatePaths
    from mayfly.images.store import Entry
    from mayfly.vmm.census import Census
    from mayfly.vmm.jail import JailerOptions

pytestmark = [pytest.mark.kvm, pytest.mark.root, pytest.mark.timeout(600)]

KILLS = 50
NODES = 2
UIDS = 200
UID = 870_000 + os.getpid() % 12 * NODES * UIDS  # another run of the tests may go on beside this one
_DEADLINE_S = 20.0
_LATEST_S = 1.2

NODE = """
import secrets, sys
from pathlib import Path
import anyio
from mayfly.host.locks import try_lock
from mayfly.host.paths import StatePaths
from mayfly.host.process import become_subreaper
from mayfly.images.store import Store
from mayfly.model import HostInfo
from mayfly.node.admission import Admission
from mayfly.node.parts import jailer_options, node_artefacts
from mayfly.pool.clone import Clone
from mayfly.pool import pace as pace_module
from mayfly.pool.pool import Pool
from mayfly.pool.shelf import PoolTargets
from mayfly.pool.size import Size
from mayfly.pool.templates import Templates
from mayfly.vmm.firecracker import FirecrackerLauncher, UidRange
from mayfly.vmm.janitor import janitor
from mayfly.vmm.leftovers import remove_leftovers
from mayfly.vmm.machine import FirecrackerMachine

async def no_answer(self, machine):
    "Guests need not run: nobody waits for an agent, nor until the machine has settled."

async def no_resume(self):
    pass

async def no_greeting(machine):
    await anyio.sleep(0.001)

from mayfly.pool import clone as clone_module, templates as templates_module
FirecrackerLauncher.first_answer = no_answer
templates_module.settle = no_greeting
templates_module.try_clone = no_answer
clone_module.greet_machine = clone_module.warm_machine = no_greeting
FirecrackerMachine.resume = no_resume
pace_module._QUIET_S = pace_module._QUIET_FOR_TEMPLATE_S = 0.0

async def main():
    become_subreaper()
    paths = StatePaths(Path(sys.argv[1])).make()
    lock = try_lock(paths.run / "node.lock")
    assert lock is not None
    store = Store(paths)
    artefacts = node_artefacts(store, verify=False)
    options = jailer_options(paths, artefacts)
    await remove_leftovers(options)
    async with anyio.create_task_group() as group:
        with janitor(options, paths.run / "node.lock"):
            launcher = FirecrackerLauncher(
                options, artefacts.boot_source(), HostInfo(kind="kvm", firecracker=str(artefacts.version())), group,
                uids=UidRange(int(sys.argv[2]), 200),
            )
            admission = Admission(mem_mib=4096, vcpus=2, machines=10)
            templates = Templates(launcher, store, identity=artefacts.keys, verify=False)
            templates.sweep()
            pool = Pool(launcher, templates, PoolTargets(loaded=4, primed=2), admission.budget)
            sizes = [Size(64, 1), Size(96, 1)]
            for size in sizes:
                pool.want(size)
            group.start_soon(pool.fill)
            print("ready", flush=True)

            async def executions(size):
                while True:
                    machine = await pool.launch(size.spec("ex-" + secrets.token_hex(8)))
                    await anyio.sleep(0.005)
                    await machine.destroy()
                    await anyio.sleep(0.05)

            for size in sizes * 3:
                group.start_soon(executions, size)
            await anyio.sleep_forever()

anyio.run(main)
"""


@dataclass(frozen=True)
class Place:
    """Where one node at a time lives: its state directory, its machines' users, and what they leave."""

    paths: StatePaths
    options: JailerOptions
    uid: int

    def start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", NODE, str(self.paths.root), str(self.uid)]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

    def vmms(self) -> list[str]:
        """Processes that run as one of the users that only machines of this place have."""
        found, users = [], range(self.uid, self.uid + UIDS)
        for name in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                if Path(f"/proc/{name}").stat().st_uid in users and Path(f"/proc/{name}/exe").readlink():
                    found.append(name)
        return found

    def counts(self) -> tuple[int, int, int, int]:
        """Jails, control groups, processes and mounts; other nodes of this machine may have VMMs of their own."""
        now: Census = take_census(self.options)
        return now.jails, now.cgroups, len(self.vmms()), now.mounts


@pytest.fixture
def places(ready_state: StatePaths, own_state_of: Callable[[StatePaths], StatePaths]) -> Iterator[list[Place]]:
    if os.geteuid() != 0:
        pytest.skip("root, which the jailer needs")
    if problem := device_problem():
        pytest.skip(f"KVM: {problem}")
    made = []
    for number in range(NODES):
        paths = own_state_of(ready_state)
        _own_store(paths)
        options = jailer_options(paths, node_artefacts(Store(paths), verify=False))
        made.append(Place(paths, options, UID + UIDS * number))
    yield made
    for place in made:
        anyio.run(remove_leftovers, place.options)
        remove_parents(place.options)


def _own_store(paths: StatePaths) -> None:
    """The store's artefacts under hard links: templates of these tests are not for anybody else."""
    linked = paths.store.resolve()
    paths.store.unlink()
    for kind in ("firecracker", "kernel", "image-python", "agent"):
        if (linked / kind).exists():
            shutil.copytree(linked / kind, paths.store / kind, copy_function=os.link, symlinks=True)


def _kill_at(place: Place, moments: list[float]) -> int:
    """Starts a node and kills it so long after it was ready, again and again; says how many VMMs it had at most."""
    most = 0
    for number, moment in enumerate(moments):
        with place.start() as node:
            assert node.stdout is not None
            try:
                assert node.stdout.readline() == b"ready\n", f"the node of kill {number} did not start"
                time.sleep(moment)
                most = max(most, len(place.vmms()))
            finally:
                node.send_signal(signal.SIGKILL)
        deadline = time.monotonic() + _DEADLINE_S
        while place.counts() != (0, 0, 0, 0):
            if time.monotonic() > deadline:
                pytest.fail(f"kill {number} left (jails, groups, VMMs, mounts) {place.counts()}")
            time.sleep(0.02)
    return most


def _kept(place: Place) -> list[Entry]:
    return [entry for entry in Store(place.paths).list() if entry.kind == KIND]


def _let_one_make_a_template(place: Place) -> None:
    """On a busy machine every one was killed too early for that."""
    with place.start() as node:
        deadline = time.monotonic() + _DEADLINE_S * 3
        while not _kept(place) and time.monotonic() < deadline:
            time.sleep(0.05)
        node.send_signal(signal.SIGKILL)


def test_nothing_stays_of_a_node_that_is_killed_at_fifty_random_moments_under_load(places: list[Place]) -> None:
    chance = random.Random(20)
    moments = [[chance.uniform(0, _LATEST_S) for _ in range(KILLS // NODES)] for _ in places]
    with ThreadPoolExecutor(len(places)) as threads:
        most = max(threads.map(_kill_at, places, moments))
    assert most >= 4, "there was no load to speak of"
    for place in places:
        _let_one_make_a_template(place)
        kept = _kept(place)
        assert 1 <= len(kept) <= 2
        for entry in kept:  # none was made by halves
            Store(place.paths).verify(entry)
        assert len(list(place.paths.build.glob("snapshot-*"))) <= 1, "each start sweeps what the last one left"
