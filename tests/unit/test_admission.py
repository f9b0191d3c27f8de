from __future__ import annotations

import contextlib

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mayfly.errors import CapacityError, InvalidRequestError
from mayfly.model import Limits
from mayfly.node.admission import Admission

pytestmark = pytest.mark.anyio
_SMALL = Limits(mem_mib=128)


def _admission(*, machines: int = 2, mem_mib: int = 1024, queue: int = 2, wait_s: float = 5.0) -> Admission:
    return Admission(mem_mib=mem_mib, vcpus=2, machines=machines, queue=queue, wait_s=wait_s)


async def _hold(admission: Admission, inside: anyio.Event, leave: anyio.Event, limits: Limits = _SMALL) -> None:
    async with admission.slot(limits):
        inside.set()
        await leave.wait()


async def test_a_machine_that_never_fits_is_refused_with_the_field_and_the_most() -> None:
    with pytest.raises(InvalidRequestError, match="at most 1008 MiB") as caught:
        _admission().check(Limits(mem_mib=2048))
    assert caught.value.field == "limits.mem_mib"
    with pytest.raises(InvalidRequestError, match="at most 2") as caught:
        _admission().check(Limits(vcpus=4))
    assert caught.value.field == "limits.vcpus"


async def test_those_who_wait_come_in_order_when_room_comes_free() -> None:
    admission, order = _admission(machines=1, queue=5), []
    first_in, first_out = anyio.Event(), anyio.Event()

    async def late(name: str) -> None:
        async with admission.slot(_SMALL):
            order.append(name)

    async with anyio.create_task_group() as group:
        group.start_soon(_hold, admission, first_in, first_out)
        await first_in.wait()
        for name in "abc":
            group.start_soon(late, name)
            await anyio.wait_all_tasks_blocked()
        assert order == []
        first_out.set()
    assert order == ["a", "b", "c"]
    assert admission.running == 0


async def test_memory_counts_as_well_as_machines() -> None:
    admission = _admission(machines=10, mem_mib=1024, wait_s=0.01)
    async with admission.slot(Limits(mem_mib=512)), admission.slot(Limits(mem_mib=400)):
        with pytest.raises(CapacityError):
            async with admission.slot(_SMALL):
                pass


async def test_a_full_queue_answers_at_once_with_a_retry_hint() -> None:
    admission = _admission(machines=1, queue=1)
    inside, leave = anyio.Event(), anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(_hold, admission, inside, leave)
        await inside.wait()
        group.start_soon(_hold, admission, anyio.Event(), leave)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(CapacityError) as caught:
            async with admission.slot(_SMALL):
                pass
        assert caught.value.retryable
        assert caught.value.retry_after_s > 0
        leave.set()


async def test_a_wait_that_is_too_long_ends_in_capacity_and_leaves_no_trace() -> None:
    admission = _admission(machines=1, wait_s=0.01)
    async with admission.slot(_SMALL):
        with pytest.raises(CapacityError):
            async with admission.slot(_SMALL):
                pass
    async with admission.slot(_SMALL):
        assert admission.running == 1
    assert admission.running == 0


async def test_a_cancelled_waiter_does_not_keep_the_room_it_was_just_given() -> None:
    admission = _admission(machines=1)
    inside, leave = anyio.Event(), anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(_hold, admission, inside, leave)
        await inside.wait()
        scope = anyio.CancelScope()

        async def wait_cancelled() -> None:
            with scope:
                async with admission.slot(_SMALL):
                    pass

        group.start_soon(wait_cancelled)
        await anyio.wait_all_tasks_blocked()
        leave.set()
        await anyio.lowlevel.checkpoint()
        scope.cancel()
    with anyio.fail_after(20):
        async with admission.slot(_SMALL):
            pass
    assert admission.running == 0


async def test_kinds_take_turns_so_that_a_burst_of_one_does_not_hold_up_another() -> None:
    admission, order = _admission(machines=1, queue=300), []
    first_in, first_out = anyio.Event(), anyio.Event()

    async def late(name: str, limits: Limits, image: str = "python") -> None:
        async with admission.slot(limits, image=image):
            order.append(name)

    async with anyio.create_task_group() as group:
        group.start_soon(_hold, admission, first_in, first_out)
        await first_in.wait()
        for _ in range(100):
            group.start_soon(late, "burst", _SMALL)
        await anyio.wait_all_tasks_blocked()
        group.start_soon(late, "other size", Limits(mem_mib=256))
        await anyio.wait_all_tasks_blocked()
        group.start_soon(late, "other image", _SMALL, "node")
        await anyio.wait_all_tasks_blocked()
        assert admission.budget.queued == 102
        first_out.set()
    assert order.index("other size") <= 2
    assert order.index("other image") <= 3
    assert order.count("burst") == 100
    assert (admission.running, admission.budget.queued, admission.budget.running_mib) == (0, 0, 0)


async def test_a_large_machine_is_not_overtaken_for_ever_by_small_ones() -> None:
    admission, order = _admission(machines=8, mem_mib=1024, queue=50), []
    leaves = [anyio.Event() for _ in range(6)]

    async def late(name: str, limits: Limits) -> None:
        async with admission.slot(limits):
            order.append(name)

    async with anyio.create_task_group() as group:
        for leave in leaves:
            group.start_soon(_hold, admission, anyio.Event(), leave)
        await anyio.wait_all_tasks_blocked()
        group.start_soon(late, "large", Limits(mem_mib=900))
        await anyio.wait_all_tasks_blocked()
        for _ in range(5):
            group.start_soon(late, "small", _SMALL)
        await anyio.wait_all_tasks_blocked()
        assert order == []
        for leave in leaves:
            leave.set()
    assert order[0] == "large"


async def test_a_node_that_stops_refuses_those_who_wait_and_no_room_is_lost() -> None:
    admission, refused = _admission(machines=1, queue=5), []
    inside, leave = anyio.Event(), anyio.Event()

    async def late() -> None:
        try:
            async with admission.slot(_SMALL):
                pass
        except CapacityError as error:
            refused.append((error.message, error.retryable))

    async with anyio.create_task_group() as group:
        group.start_soon(_hold, admission, inside, leave)
        await inside.wait()
        for _ in range(3):
            group.start_soon(late)
        await anyio.wait_all_tasks_blocked()
        admission.refuse_waiting()
        await anyio.wait_all_tasks_blocked()
        assert refused == [("the node is shutting down", True)] * 3
        leave.set()
    assert (admission.running, admission.budget.running_mib, admission.budget.queued) == (0, 0, 0)
    async with admission.slot(_SMALL):
        assert admission.running == 1


async def test_the_hint_grows_with_the_queue_and_stays_in_bounds() -> None:
    admission = _admission(machines=2, queue=1000)
    hints = []
    for queued in (0, 10, 900):
        admission.budget.queued = queued
        hints.append(admission.retry_after_s())
    assert hints == sorted(hints)
    assert 1 <= hints[0] < hints[-1] <= 60


async def test_two_hundred_at_once_for_ten_places_with_a_short_queue_get_a_place_or_a_hint() -> None:
    admission = _admission(machines=10, mem_mib=1 << 20, queue=100)
    done: list[str] = []

    async def one() -> None:
        try:
            async with admission.slot(_SMALL):
                await anyio.sleep(0.001)
                done.append("ran")
        except CapacityError as error:
            done.append("told" if error.retry_after_s >= 1 else "lost")

    async with anyio.create_task_group() as group:
        for _ in range(200):
            group.start_soon(one)
    assert (done.count("ran"), done.count("told")) == (110, 90)
    assert admission.running == 0


_WISHES = st.lists(
    st.tuples(st.integers(64, 900), st.sampled_from([0.0, 0.001, 0.003]), st.sampled_from([None, 0.0, 0.0005, 0.002])),
    max_size=25,
)


@given(wishes=_WISHES)
@settings(max_examples=40, deadline=None)
def test_whoever_comes_waits_and_goes_the_budget_is_kept_and_all_of_it_comes_back(
    wishes: list[tuple[int, float, float | None]],
) -> None:
    async def work() -> None:
        admission = _admission(machines=3, queue=8, wait_s=0.01)

        async def one(mem_mib: int, hold_s: float, give_up_s: float | None) -> None:
            with anyio.move_on_after(give_up_s), contextlib.suppress(CapacityError):
                async with admission.slot(Limits(mem_mib=mem_mib)):
                    budget = admission.budget
                    assert budget.running <= budget.machines
                    assert budget.running_mib <= budget.mem_mib
                    await anyio.sleep(hold_s)

        async with anyio.create_task_group() as group:
            for wish in wishes:
                group.start_soon(one, *wish)
        budget = admission.budget
        assert (budget.running, budget.running_mib, budget.queued) == (0, 0, 0)
        assert admission._turns == {}

    anyio.run(work)
