"""A node after many executions is as it was after the first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mayfly.errors import MayflyError

if TYPE_CHECKING:
    from tests.conftest import LiveNode

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600), pytest.mark.usefixtures("settled")]

ENDS = {
    "succeeds": ("print(1)", {}),
    "fails": ("raise SystemExit(1)", {}),
    "times out": ("while True: pass", {"timeout_s": 1, "policy": "research"}),
    "denied": ("print(", {}),
    "refused": ("print(1)", {"mem_mib": 16384}),
}


def test_descriptors_threads_and_machines_stay_flat_however_executions_end(live_node: LiveNode, program: Any) -> None:
    programs = {name: program(*given) for name, given in ENDS.items()}
    live_node.run_all(programs)
    before = live_node.rest()
    for _ in range(2):
        outcomes = live_node.run_all(programs)
        statuses = [outcomes[name].status for name in ("succeeds", "fails", "times out", "denied")]
        assert statuses == ["succeeded", "failed", "timeout", "denied"]
        with pytest.raises(MayflyError):
            outcomes["refused"]
    live_node.assert_flat(before)


def test_more_programs_than_places_all_get_their_turn(live_node: LiveNode, program: Any) -> None:
    outcomes = live_node.run_all({str(n): program(f"print({n})") for n in range(4)}, at_once=4)
    assert [outcomes[str(n)].stdout for n in range(4)] == [f"{n}\n" for n in range(4)]
    assert anyio.run(live_node.client().health)["running"] == 0
