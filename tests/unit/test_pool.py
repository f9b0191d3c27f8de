"""The pool over machines that are only bookkeeping: what it keeps, gives, and takes away again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mayfly.errors import CapacityError, VmmApiError, VmmError, VmmExitedError
from mayfly.model import HostInfo, Limits
from mayfly.node.admission import Admission
from mayfly.pool import clone as clone_module
from mayfly.pool import pace as pace_module
from mayfly.pool import pool as pool_module
from mayfly.pool.budget import Budget
from mayfly.pool.clone import Clone, CloneState
from mayfly.pool.holes import dig_holes
from mayfly.pool.pace import Pace
from mayfly.pool.pool import Pool
from mayfly.pool.shelf import PoolTargets, clamp_targets
from mayfly.pool.size import Size
from mayfly.vmm.launcher import MachineSpec
from mayfly.vmm.machine import SnapshotFiles

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio
_SIZE = Size(256, 1)


class _Machine:
    def __init__(self, launcher: _Launcher, spec: MachineSpec, how: str) -> None:
        self.id, self.how, self.greeted = spec.id, how, False
        self.spec, self.io = spec, (spec.io_mbps, spec.io_ops)
        self.weight = 100
        self.vsock_path = Path("/nowhere")
        self.exited = anyio.Event()
        self._launcher = launcher
        launcher.alive[spec.id] = self

    async def resume(self) -> None:
        if self._launcher.resume_fails:
            self._launcher.resume_fails -= 1
            raise VmmExitedError("no")

    async def destroy(self) -> None:
        self._launcher.alive.pop(self.id, None)

    def cpu_s(self) -> float:
        return 0.0

    def memory_mib(self) -> float:
        return 10.0

    async def limit_io(self, *, mbps: int, ops: int) -> None:
        self.io = (mbps, ops)

    def weigh(self, percent: int) -> None:
        self.weight = percent

    def last_words(self) -> str:
        return ""


class _Launcher:
    kind = "fake"

    def __init__(self) -> None:
        self.alive: dict[str, _Machine] = {}
        self.load_fails = False
        self.load_error: Exception = VmmError("bad snapshot")
        self.load_waits: anyio.Event | None = None
        self.resume_fails = 0
        self.boots_that_die = 0

    def describe(self, image: str = "python") -> HostInfo:
        del image
        return HostInfo(kind="fake", firecracker="none")

    async def launch(self, spec: MachineSpec) -> _Machine:
        if self.boots_that_die:
            self.boots_that_die -= 1
            raise VmmExitedError("it said nothing")
        return _Machine(self, spec, "booted")

    async def load(self, spec: MachineSpec, _: SnapshotFiles) -> _Machine:
        if self.load_fails:
            raise self.load_error
        if self.load_waits is not None:
            await self.load_waits.wait()
        return _Machine(self, spec, "loaded")


class _Templates:
    def __init__(self) -> None:
        self.made: dict[Size, SnapshotFiles] = {}
        self.making: set[str] = set()
        self.forgotten: list[Size] = []

    @staticmethod
    def worthwhile(size: Size) -> bool:
        return size.mem_mib <= 2048

    def key(self, size: Size) -> str:
        return f"{size.mem_mib}-{size.vcpus}-{size.image}"

    def find(self, size: Size) -> SnapshotFiles | None:
        return self.made.get(size)

    async def prepare(self, size: Size) -> SnapshotFiles | None:
        return self.made.get(size)

    at_hand = prepare

    async def build(self, size: Size) -> SnapshotFiles:
        self.made[size] = SnapshotFiles(Path("s"), Path("m"))
        return self.made[size]

    def forget(self, size: Size) -> None:
        self.forgotten.append(size)
        self.made.pop(size, None)


@pytest.fixture
def launcher() -> _Launcher:
    return _Launcher()


@pytest.fixture
def templates() -> _Templates:
    return _Templates()


@pytest.fixture
async def pool(launcher: _Launcher, templates: _Templates, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pool]:
    async def greet(_: Any) -> None:
        return

    monkeypatch.setattr(clone_module, "greet_machine", greet)
    monkeypatch.setattr(clone_module, "warm_machine", greet)
    monkeypatch.setattr(pace_module, "_QUIET_S", 0.001)
    monkeypatch.setattr(pace_module, "_QUIET_FOR_TEMPLATE_S", 0.001)
    monkeypatch.setattr(pool_module, "_RETRY_S", 0.001)
    pool = Pool(launcher, templates, PoolTargets(loaded=2, primed=1))  # type: ignore[arg-type]
    yield pool
    await pool.drain()
    assert pool.held() == frozenset()


def _spec(name: str = "ex-1", mem_mib: int = 256) -> MachineSpec:
    return MachineSpec(id=name, mem_mib=mem_mib)


async def _until(condition: Any) -> None:
    with anyio.fail_after(5):
        while not condition():  # noqa: ASYNC110 - any condition
            await anyio.sleep(0.002)


def _waiting(pool: Pool) -> tuple[int, int]:
    row = pool.state()["sizes"][0]
    return row["loaded"], row["primed"]


async def test_a_wanted_size_gets_a_template_and_then_its_targets(pool: Pool, launcher: _Launcher) -> None:
    pool.want(_SIZE)
    async with anyio.create_task_group() as group:
        group.start_soon(pool.fill)
        await _until(lambda: _waiting(pool) == (2, 1))
        assert len(launcher.alive) == 3
        assert pool.held() == frozenset(launcher.alive)
        group.cancel_scope.cancel()


async def test_a_claim_takes_the_readiest_and_its_place_is_filled_again(pool: Pool) -> None:
    pool.want(_SIZE)
    async with anyio.create_task_group() as group:
        group.start_soon(pool.fill)
        await _until(lambda: _waiting(pool) == (2, 1))
        given = {(await pool.launch(_spec(f"ex-{n}"))).id for n in range(6)}
        assert len(given) == 6  # never the same machine twice
        assert not given & pool.held()
        await _until(lambda: _waiting(pool) == (2, 1))
        group.cancel_scope.cancel()


async def test_without_a_template_a_machine_is_booted(pool: Pool, launcher: _Launcher) -> None:
    machine = await pool.launch(_spec())
    assert isinstance(machine, _Machine)
    assert machine.how == "booted"


async def test_a_machine_that_dies_while_it_boots_is_replaced_once(pool: Pool, launcher: _Launcher) -> None:
    launcher.boots_that_die = 1
    assert (await pool.launch(_spec())).id != "ex-1"  # names are never used twice
    launcher.boots_that_die = 2
    with pytest.raises(VmmExitedError):
        await pool.launch(_spec("ex-2"))


async def test_an_empty_shelf_falls_through_to_a_restore(pool: Pool, templates: _Templates) -> None:
    pool.want(_SIZE)
    await templates.build(_SIZE)
    machine = await pool.launch(_spec())
    assert isinstance(machine, Clone)
    assert machine.state is CloneState.RUNNING
    assert machine.greeted


async def test_machines_too_large_for_a_template_are_booted(pool: Pool, templates: _Templates) -> None:
    templates.made[Size(4096, 1)] = SnapshotFiles(Path("s"), Path("m"))
    assert isinstance(await pool.launch(_spec(mem_mib=4096)), _Machine)
    assert pool.state()["sizes"] == []


async def test_a_clone_that_died_while_waiting_is_removed_and_not_given(pool: Pool, launcher: _Launcher) -> None:
    pool.want(_SIZE)
    async with anyio.create_task_group() as group:
        group.start_soon(pool.fill)
        await _until(lambda: _waiting(pool) == (2, 1))
        group.cancel_scope.cancel()
    dead = set(launcher.alive)
    for machine in launcher.alive.values():
        machine.exited.set()
    machine = await pool.launch(_spec())
    assert machine.id not in dead
    assert not dead & set(launcher.alive)


async def test_a_restore_that_fails_is_answered_by_a_boot_and_a_bad_template_is_made_again(
    pool: Pool, launcher: _Launcher, templates: _Templates
) -> None:
    pool.want(_SIZE)
    await templates.build(_SIZE)
    launcher.load_fails = True
    for number in range(3):
        machine = await pool.launch(_spec(f"ex-{number}"))
        assert isinstance(machine, _Machine)
        assert machine.how == "booted"
    assert templates.forgotten == [_SIZE]


async def test_a_clone_that_cannot_be_primed_is_destroyed(
    pool: Pool, launcher: _Launcher, templates: _Templates
) -> None:
    pool.want(_SIZE)
    await templates.build(_SIZE)
    launcher.resume_fails = 2
    with pytest.raises(VmmError):
        await pool.launch(_spec())
    assert launcher.alive == {}


async def test_a_clone_that_is_lost_before_it_is_ready_is_replaced_once(
    pool: Pool, launcher: _Launcher, templates: _Templates
) -> None:
    pool.want(_SIZE)
    await templates.build(_SIZE)
    launcher.resume_fails = 1
    machine = await pool.launch(_spec())
    assert set(launcher.alive) == {machine.id}


async def test_a_full_disk_while_clones_are_made_ends_neither_the_filling_nor_a_claim(
    pool: Pool, launcher: _Launcher, templates: _Templates, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = 0

    async def full(_: Size) -> SnapshotFiles:
        nonlocal tried
        tried += 1
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(templates, "build", full)
    pool.want(_SIZE)
    async with anyio.create_task_group() as group:
        group.start_soon(pool.fill)
        await _until(lambda: tried > 0)
        machine = await pool.launch(_spec())
        assert machine.id in launcher.alive
        group.cancel_scope.cancel()


async def test_draining_destroys_what_waits(pool: Pool, launcher: _Launcher) -> None:
    pool.want(_SIZE)
    async with anyio.create_task_group() as group:
        group.start_soon(pool.fill)
        await _until(lambda: _waiting(pool) == (2, 1))
        group.cancel_scope.cancel()
    await pool.drain()
    assert launcher.alive == {}


async def test_a_clone_only_goes_forward(launcher: _Launcher) -> None:
    seen: list[CloneState] = []
    clone = Clone(_spec(), _SIZE, lambda each: seen.append(each.state))
    assert clone.state is CloneState.SPAWNING
    assert not clone.alive
    await clone.spawn(launcher, SnapshotFiles(Path("s"), Path("m")))  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="cannot go from loaded to running"):
        clone.hand_over()
    await clone.destroy()
    assert clone.state is CloneState.GONE
    with pytest.raises(RuntimeError):
        clone.hand_over()
    assert seen == [CloneState.LOADED, CloneState.DYING, CloneState.GONE]


async def test_a_clone_that_cannot_be_spawned_is_gone(launcher: _Launcher) -> None:
    launcher.load_fails = True
    clone = Clone(_spec(), _SIZE)
    with pytest.raises(VmmError):
        await clone.spawn(launcher, SnapshotFiles(Path("s"), Path("m")))  # type: ignore[arg-type]
    assert clone.state is CloneState.GONE
    await clone.destroy()


async def test_holes_keep_the_content_and_give_blocks_back(tmp_path: Path) -> None:
    path = tmp_path / "memory"
    content = b"a" * 70_000 + bytes(1 << 20) + b"b" * 10 + bytes(5 << 20) + b"c"
    path.write_bytes(content)
    before = path.stat().st_blocks
    given_back = dig_holes(path)
    assert path.read_bytes() == content
    assert path.stat().st_mode & 0o777 == 0o444
    assert given_back == 0 or path.stat().st_blocks < before


# -- what waits, and what it may take ----------------------------------------------------------------------


def _pool_of(launcher: _Launcher, templates: _Templates, budget: Budget, loaded: int = 2, primed: int = 1) -> Pool:
    return Pool(launcher, templates, PoolTargets(loaded, primed), budget)  # type: ignore[arg-type]


async def test_a_refused_snapshot_is_made_again_at_once(pool: Pool, launcher: _Launcher, templates: _Templates) -> None:
    pool.want(_SIZE)
    await templates.build(_SIZE)
    launcher.load_fails, launcher.load_error = True, VmmApiError("Firecracker refused PUT /snapshot/load: bad CRC64")
    machine = await pool.launch(_spec())
    assert isinstance(machine, _Machine)
    assert machine.how == "booted"
    assert templates.forgotten == [_SIZE]


async def test_user_ids_that_run_out_say_nothing_against_the_template(
    pool: Pool, launcher: _Launcher, templates: _Templates
) -> None:
    pool.want(_SIZE)
    await templates.build(_SIZE)
    launcher.load_fails, launcher.load_error = True, CapacityError("all user ids for machines are in use")
    for _ in range(5):
        pool._shelves[_SIZE].retry_at = 0.0
        await pool._fill_once()
    assert pool.state()["sizes"][0]["failures"] == 5
    assert templates.forgotten == []


async def test_sizes_take_turns_and_a_burst_of_one_does_not_keep_another_waiting(
    pool: Pool, launcher: _Launcher, templates: _Templates
) -> None:
    other = Size(512, 1)
    for size in (_SIZE, other):
        await templates.build(size)
        pool.want(size)
    for _ in range(4):
        await pool._fill_once()
    rows = {row["mem_mib"]: row for row in pool.state()["sizes"]}
    assert [rows[256]["loaded"] + rows[256]["primed"], rows[512]["loaded"] + rows[512]["primed"]] == [1, 1]


async def test_images_and_disks_are_sizes_of_their_own(pool: Pool, templates: _Templates) -> None:
    for spec in (
        _spec(),
        MachineSpec(id="a", mem_mib=256, image="node"),
        MachineSpec(id="b", mem_mib=256, scratch_mib=64),
    ):
        await pool.launch(spec)
    assert {(row["image"], row["scratch_mib"]) for row in pool.state()["sizes"]} == {
        ("python", 0),
        ("node", 0),
        ("python", 64),
    }


async def test_other_rates_than_the_templates_are_set_before_the_machine_is_given(
    pool: Pool, launcher: _Launcher, templates: _Templates
) -> None:
    pool.want(_SIZE)
    await templates.build(_SIZE)
    machine = await pool.launch(MachineSpec(id="slow", mem_mib=256, io_mbps=3, io_ops=500))
    assert launcher.alive[machine.id].io == (3, 500)


async def test_clones_wait_only_in_what_executions_leave_and_are_given_up_for_them(
    launcher: _Launcher, templates: _Templates, pool: Pool
) -> None:
    budget = Budget(mem_mib=600, machines=8)
    own = _pool_of(launcher, templates, budget, loaded=20, primed=0)
    await templates.build(_SIZE)
    own.want(_SIZE)
    async with anyio.create_task_group() as group:
        group.start_soon(own.fill)
        await _until(lambda: own.state()["budget"]["waiting_mib"] >= 190)
        budget.take(500)  # an execution starts
        await _until(lambda: own.state()["budget"]["waiting_mib"] <= 84)
        assert budget.overdrawn_mib <= 0
        assert len(launcher.alive) == own.state()["sizes"][0]["loaded"] > 0
        await own.drain()
        group.cancel_scope.cancel()
    assert launcher.alive == {}


async def test_nothing_is_made_ahead_while_executions_queue_for_room(
    launcher: _Launcher, templates: _Templates, pool: Pool
) -> None:
    budget = Budget(mem_mib=4096, machines=8)
    own = _pool_of(launcher, templates, budget)
    await templates.build(_SIZE)
    own.want(_SIZE)
    budget.queued = 1
    for _ in range(5):
        await own._fill_once()
    assert launcher.alive == {}
    budget.queued = 0
    await own._fill_once()
    assert len(launcher.alive) == 1
    await own.drain()


@pytest.mark.parametrize(
    ("wanted", "mem_mib", "kept"),
    [((2, 1), 4096, (2, 1)), ((0, 0), 4096, (0, 0)), ((1000, 200), 1024, (4, 12)), ((4, 4), 64, (4, 0))],
    ids=["fits", "none", "far too many", "no room for a running one"],
)
def test_targets_beyond_half_of_the_memory_are_cut_with_a_warning(
    wanted: tuple[int, int], mem_mib: int, kept: tuple[int, int]
) -> None:
    targets, warning = clamp_targets(PoolTargets(*wanted), Budget(mem_mib=mem_mib, machines=8))
    assert (targets.loaded, targets.primed) == kept
    assert (warning is None) == (wanted == kept)


async def test_a_pool_of_none_gives_machines_all_the_same(
    launcher: _Launcher, templates: _Templates, pool: Pool
) -> None:
    own = _pool_of(launcher, templates, Budget(mem_mib=4096, machines=8), loaded=0, primed=0)
    await templates.build(_SIZE)
    own.want(_SIZE)
    assert await own._step(_SIZE, own._shelves[_SIZE]) is False
    assert isinstance(await own.launch(_spec()), Clone)
    await own.drain()


async def test_an_idle_size_shrinks_to_one_and_then_to_none(
    pool: Pool, launcher: _Launcher, templates: _Templates
) -> None:
    await templates.build(_SIZE)
    pool.want(_SIZE)
    shelf = pool._shelves[_SIZE]
    for _ in range(6):
        await pool._fill_once()
    assert _waiting(pool) == (2, 1)
    shelf.last_claim -= 400
    for _ in range(6):
        await pool._fill_once()
    assert _waiting(pool) == (1, 0)
    shelf.last_claim -= 2000
    for _ in range(6):
        await pool._fill_once()
    assert _waiting(pool) == (0, 0)
    assert launcher.alive == {}


async def test_more_than_eight_sizes_give_up_the_one_used_longest_ago(
    pool: Pool, launcher: _Launcher, templates: _Templates
) -> None:
    for number in range(9):
        size = Size(128 + number, 1)
        await templates.build(size)
        pool.want(size)
        pool._shelves[size].last_claim -= 100 - number
    for _ in range(40):
        await pool._fill_once()
    sizes = {row["mem_mib"] for row in pool.state()["sizes"]}
    assert 128 not in sizes
    assert len(sizes) == 8


async def test_draining_takes_what_is_being_made_and_refuses_claims(
    pool: Pool, launcher: _Launcher, templates: _Templates
) -> None:
    await templates.build(_SIZE)
    launcher.load_waits = anyio.Event()
    pool.want(_SIZE)
    async with anyio.create_task_group() as group:
        group.start_soon(pool.fill)
        await _until(lambda: pool.state()["sizes"][0]["spawning"] == 1)
        with anyio.fail_after(2):
            await pool.drain()
        with pytest.raises(CapacityError):
            await pool.launch(_spec())
    assert launcher.alive == {}
    assert pool.held() == frozenset()


async def test_giving_up_a_template_destroys_its_waiting_clones_only(
    pool: Pool, launcher: _Launcher, templates: _Templates
) -> None:
    other = Size(512, 1)
    for size in (_SIZE, other):
        await templates.build(size)
        pool.want(size)
    for _ in range(12):
        await pool._fill_once()
    running = await pool.launch(_spec())
    assert pool.waiting(templates.key(_SIZE)) == 2
    assert await pool.give_up(templates.key(_SIZE)) == 2
    assert running.id in launcher.alive
    assert {row["mem_mib"] for row in pool.state()["sizes"]} == {512}


async def test_two_hundred_claims_for_ten_places_all_get_a_machine_of_their_own(
    launcher: _Launcher, templates: _Templates, pool: Pool
) -> None:
    admission = Admission(mem_mib=1 << 20, vcpus=8, machines=10)
    own = _pool_of(launcher, templates, admission.budget)
    await templates.build(_SIZE)
    own.want(_SIZE)
    given: list[str] = []
    most = 0

    async def claim(number: int) -> None:
        nonlocal most
        async with admission.slot(Limits()):
            machine = await own.launch(_spec(f"ex-{number}"))
            given.append(machine.id)
            most = max(most, admission.running)
            await anyio.sleep(0.001)
            await machine.destroy()

    async with anyio.create_task_group() as group:
        group.start_soon(own.fill)
        await _until(lambda: own.state()["sizes"][0]["primed"] == 1)
        async with anyio.create_task_group() as claims:
            for number in range(200):
                claims.start_soon(claim, number)
        await own.drain()
        group.cancel_scope.cancel()
    assert len(set(given)) == 200
    assert most == 10
    assert (admission.running, admission.budget.running_mib, admission.budget.queued) == (0, 0, 0)
    assert launcher.alive == {}


# -- under a load that never pauses ------------------------------------------------------------------------


@pytest.fixture
def restless(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> Pool:
    """A pool that finds no quiet, and whose patience is short."""
    monkeypatch.setattr(pace_module, "_QUIET_S", 1000.0)
    monkeypatch.setattr(pace_module, "_QUIET_FOR_TEMPLATE_S", 1000.0)
    monkeypatch.setattr(pace_module, "_PATIENCE_S", 0.005)
    monkeypatch.setattr(pace_module, "_PATIENCE_FOR_TEMPLATE_S", 0.05)
    monkeypatch.setattr(pool_module, "_LOOK_SOON_S", 0.005)
    return pool


async def test_a_load_that_never_pauses_gets_its_template_and_then_clones_that_waited(restless: Pool) -> None:
    given: list[Any] = []

    async def load() -> None:
        while True:
            machine = await restless.launch(_spec(f"ex-{len(given)}"))
            given.append(machine)
            await anyio.sleep(0.001)
            await machine.destroy()

    async with anyio.create_task_group() as group:
        group.start_soon(restless.fill)
        group.start_soon(load)
        await _until(lambda: any(isinstance(machine, Clone) for machine in given))
        await _until(lambda: any(not machine.id.startswith("ex-") for machine in given))  # made before it was asked for
        group.cancel_scope.cancel()
    assert isinstance(given[0], _Machine)
    assert given[0].how == "booted"


async def test_a_template_is_made_also_where_executions_always_queue(
    restless: Pool, launcher: _Launcher, templates: _Templates
) -> None:
    admission = Admission(mem_mib=600, vcpus=1, machines=2)
    own = _pool_of(launcher, templates, admission.budget)
    ended = 0

    async def load() -> None:
        nonlocal ended
        while True:
            async with admission.slot(Limits(mem_mib=256)):
                machine = await own.launch(_spec(f"ex-{ended}"))
                await anyio.sleep(0.001)
                await machine.destroy()
            ended += 1

    async with anyio.create_task_group() as group:
        group.start_soon(own.fill)
        for _ in range(5):
            group.start_soon(load)
        await _until(lambda: templates.made)
        before = ended
        await _until(lambda: ended > before + 20)  # what was kept from them is theirs again
        group.cancel_scope.cancel()
    await own.drain()


async def test_room_for_a_template_comes_before_those_that_wait_and_is_theirs_again_afterwards() -> None:
    admission = Admission(mem_mib=544, vcpus=1, machines=8)
    budget, limits, started = admission.budget, Limits(mem_mib=256), []
    ends = [anyio.Event() for _ in range(3)]

    async def execution(number: int) -> None:
        async with admission.slot(limits):
            started.append(number)
            await ends[number].wait()

    async with anyio.create_task_group() as group:
        for number in range(3):
            group.start_soon(execution, number)
        await _until(lambda: budget.queued == 1)
        async with budget.making(256) as found:
            assert not found
        ended = anyio.Event()

        async def end_one() -> None:
            await anyio.sleep(0.01)
            ends[0].set()
            ended.set()

        group.start_soon(end_one)
        async with budget.making(256, patience_s=5) as found:
            assert found
            assert ended.is_set()
            assert budget.queued == 1
        await _until(lambda: started == [0, 1, 2])
        for end in ends:
            end.set()
    assert (budget.running, budget.running_mib, budget.making_mib) == (0, 0, 0)


async def test_room_that_is_all_there_is_stays_with_the_executions() -> None:
    budget = Budget(mem_mib=300, machines=8)
    budget.take(256)
    async with budget.making(256, patience_s=0.01) as found:
        assert not found
    budget.queued = 1
    budget.give_back(256)
    async with budget.making(256, patience_s=0.01) as found:
        assert not found
    budget.queued = 0
    async with budget.making(256, patience_s=0.01) as found:
        assert found
        assert budget.fits(256)


class _Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    clock = _Clock()
    monkeypatch.setattr(pace_module, "time", clock)
    return clock


def test_patience_ends_in_one_step_and_begins_anew(clock: _Clock) -> None:
    pace = Pace()
    with pace.launch():
        for _ in range(3):
            assert pace.wait_s() > 0
            clock.now += 1.0
            assert pace.wait_s() > 0
            clock.now += 0.6
            assert pace.wait_s() == 0


def test_a_launch_after_a_long_rest_is_not_disturbed(clock: _Clock) -> None:
    pace = Pace()
    clock.now += 500
    assert pace.wait_s() == 0
    clock.now += 500
    with pace.launch():
        assert pace.wait_s() > 0
    assert pace.wait_s() > 0
    clock.now += 0.3
    assert pace.wait_s() == 0


def test_a_template_that_is_asked_for_waits_for_quiet_but_not_for_ever(clock: _Clock) -> None:
    pace = Pace()
    missing_since = clock.now
    with pace.launch():
        clock.now += 19
        assert not pace.template_due(missing_since, clock.now)
    clock.now += 0.5
    assert not pace.template_due(missing_since, clock.now)
    clock.now += 1.6
    assert pace.starved(missing_since, clock.now)
    assert not pace.starved(missing_since, missing_since)  # nobody has asked again
    assert pace.template_due(clock.now, clock.now)  # quiet for long enough
    with pace.launch():
        assert pace.template_due(missing_since, clock.now)
        assert not pace.template_due(missing_since, missing_since)
        assert not pace.template_due(clock.now, clock.now)


# -- warming up --------------------------------------------------------------------------------------------


async def test_a_clone_that_waits_in_quiet_is_warmed_up_and_given_as_it_is(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    warmed: list[str] = []

    async def warm(clone: Clone) -> None:
        warmed.append(clone.id)

    monkeypatch.setattr(clone_module, "warm_machine", warm)
    pool.want(_SIZE)
    async with anyio.create_task_group() as group:
        group.start_soon(pool.fill)
        await _until(lambda: pool.state()["sizes"][0]["warm"] == 1)
        group.cancel_scope.cancel()
    assert (await pool.launch(_spec())).id == warmed[0]
    assert pool.state()["sizes"][0]["warm"] == 0


async def test_a_claim_does_not_wait_for_a_clone_to_be_warm(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    warming, ended = anyio.Event(), anyio.Event()

    async def warm(_: Clone) -> None:
        warming.set()
        try:
            await anyio.sleep_forever()
        finally:
            ended.set()

    monkeypatch.setattr(clone_module, "warm_machine", warm)
    pool.want(_SIZE)
    async with anyio.create_task_group() as group:
        group.start_soon(pool.fill)
        await warming.wait()
        waiting = pool._shelves[_SIZE].primed[0]
        with anyio.fail_after(5):
            assert await pool.launch(_spec()) is waiting
            await ended.wait()
        assert not waiting.warm
        await _until(lambda: _waiting(pool) == (2, 1))  # and filling goes on
        group.cancel_scope.cancel()


async def test_a_clone_made_without_quiet_is_warmed_up_when_it_comes(
    pool: Pool, templates: _Templates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace_module, "_QUIET_S", 0.1)
    monkeypatch.setattr(pace_module, "_PATIENCE_S", 0.0)
    await templates.build(_SIZE)
    async with anyio.create_task_group() as group:
        group.start_soon(pool.fill)
        await (await pool.launch(_spec())).destroy()
        await _until(lambda: pool.state()["sizes"][0]["warm"] == 1)
        group.cancel_scope.cancel()


async def test_warming_up_gives_way_to_machines_that_run_until_it_ends_or_is_claimed(
    pool: Pool, launcher: _Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    warming, go_on = anyio.Event(), anyio.Event()
    weights: list[int] = []

    async def warm(clone: Clone) -> None:
        weights.append(launcher.alive[clone.id].weight)
        warming.set()
        await go_on.wait()

    monkeypatch.setattr(clone_module, "warm_machine", warm)
    pool.want(_SIZE)
    async with anyio.create_task_group() as group:
        group.start_soon(pool.fill)
        await warming.wait()
        claimed = launcher.alive[(await pool.launch(_spec())).id]
        await _until(lambda: claimed.weight == 100)
        go_on.set()
        await _until(lambda: pool.state()["sizes"][0]["warm"] == 1)
        group.cancel_scope.cancel()
    assert set(weights) == {10}
    assert {machine.weight for machine in launcher.alive.values()} == {100}


async def test_a_clone_that_cannot_be_warmed_up_is_as_good_as_before(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = 0

    async def warm(_: Clone) -> None:
        nonlocal tried
        tried += 1
        raise VmmError("no")

    monkeypatch.setattr(clone_module, "warm_machine", warm)
    pool.want(_SIZE)
    async with anyio.create_task_group() as group:
        group.start_soon(pool.fill)
        await _until(lambda: tried > 0)
        waiting = pool._shelves[_SIZE].primed[0]
        assert await pool.launch(_spec()) is waiting
        group.cancel_scope.cancel()
    assert pool.state()["sizes"][0]["failures"] == 0
