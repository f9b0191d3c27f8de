"""The node's scanner over real worker processes."""

from __future__ import annotations

import os
import signal

import anyio
import pytest

from mayfly.model import CODE_MAX_BYTES
from mayfly.node.scanner import open_scanner
from mayfly.scan import Manifest, builtin_policy

pytestmark = pytest.mark.anyio
DEFAULT = builtin_policy("default")
IMAGE = Manifest(image="python", stdlib=("os",), modules=("house_module",))


async def test_verdicts_come_from_a_worker_with_policy_and_manifest_of_each_request() -> None:
    async with open_scanner() as scanner:
        assert (await scanner.scan(b"print(1)", "python", DEFAULT)).verdict == "allow"
        assert (await scanner.scan(b"import house_module", "python", DEFAULT)).verdict == "review"
        assert (await scanner.scan(b"import house_module", "python", DEFAULT, IMAGE)).verdict == "allow"
        assert (await scanner.scan(b"import os", "python", builtin_policy("strict"), IMAGE)).verdict == "deny"
        assert (await scanner.scan(b"import house_module as h", "python", DEFAULT)).verdict == "review"
        assert (await scanner.scan(b"echo 1", "bash", DEFAULT)).verdict == "allow"


async def test_over_size_is_refused_without_asking_a_worker() -> None:
    async with open_scanner() as scanner:
        verdict = await scanner.scan(b"#" * (CODE_MAX_BYTES + 1), "python", DEFAULT)
    assert (verdict.verdict, verdict.parse.partition(":")[0]) == ("unparseable", "size")


async def test_a_known_program_is_answered_from_the_cache() -> None:
    async with open_scanner() as scanner:
        first = await scanner.scan(b"print(1)", "python", DEFAULT)
        assert await scanner.scan(b"print(1)", "python", DEFAULT) is first


async def test_a_worker_that_died_is_replaced_and_the_program_still_scanned() -> None:
    async with open_scanner() as scanner:
        await scanner.scan(b"print(1)", "python", DEFAULT)
        (worker,) = scanner._all
        os.kill(worker.child.pid, signal.SIGKILL)
        assert (await scanner.scan(b"print(2)", "python", DEFAULT)).verdict == "allow"
        assert scanner._all != {worker}


async def test_a_scan_that_misses_its_deadline_is_unparseable_and_its_worker_ended() -> None:
    async with open_scanner(deadline_s=0.2) as scanner:
        await scanner.scan(b"print(1)", "python", DEFAULT)
        (worker,) = scanner._all
        os.kill(worker.child.pid, signal.SIGSTOP)
        verdict = await scanner.scan(b"print(2)", "python", DEFAULT)
        assert verdict.verdict == "unparseable"
        assert "longer than 0.2 s" in verdict.parse
        assert worker.child.exit_code == -signal.SIGKILL
    async with open_scanner() as scanner:
        assert (await scanner.scan(b"print(2)", "python", DEFAULT)).verdict == "allow"


async def test_a_cancelled_scan_does_not_hand_its_answer_to_the_next() -> None:
    async with open_scanner() as scanner:
        await scanner.scan(b"print(1)", "python", DEFAULT)
        (worker,) = scanner._all
        os.kill(worker.child.pid, signal.SIGSTOP)
        with anyio.move_on_after(0.05):
            await scanner.scan(b"import reqeusts", "python", DEFAULT)
        assert (await scanner.scan(b"print(3)", "python", DEFAULT)).verdict == "allow"


async def test_many_scans_at_once_share_the_workers() -> None:
    async with open_scanner(workers=2) as scanner:
        verdicts: dict[int, str] = {}

        async def one(number: int) -> None:
            name = "reqeusts" if number % 2 else "json"
            verdicts[number] = (await scanner.scan(f"import {name} # {number}".encode(), "python", DEFAULT)).verdict

        async with anyio.create_task_group() as group:
            for number in range(20):
                group.start_soon(one, number)
    assert verdicts == {n: "review" if n % 2 else "allow" for n in range(20)}


async def test_what_exhausts_a_parser_is_refused_and_the_next_program_is_not() -> None:
    async with open_scanner() as scanner:
        for number, hostile in enumerate((b"-" * 200_000 + b"1", b"(" * 200_000, b"a" + b".a" * 100_000)):
            assert (await scanner.scan(hostile, "python", DEFAULT)).verdict == "unparseable"
            assert (await scanner.scan(b"print(%d)" % number, "python", DEFAULT)).verdict == "allow"


async def test_long_but_ordinary_programs_are_read() -> None:
    chain = "if x == 0:\n    y = 0\n" + "".join(f"elif x == {n}:\n    y = {n}\n" for n in range(1, 600))
    calls = "x = f" + "(f" * 150 + "(1)" + ")" * 150
    methods = "x = a" + ".b()" * 400
    sums = "x = " + " + ".join(f"'{n}'" for n in range(5000))
    async with open_scanner() as scanner:
        for program in (chain, calls, methods, sums):
            verdict = await scanner.scan(program.encode(), "python", DEFAULT)
            assert verdict.verdict == "allow", verdict


async def test_no_worker_outlives_the_scanner() -> None:
    async with open_scanner(workers=2) as scanner:
        workers = list(scanner._all)
    assert len(workers) == 2
    assert all(worker.child.exit_code == -signal.SIGKILL for worker in workers)
