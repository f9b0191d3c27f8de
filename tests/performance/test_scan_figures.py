"""What the scan finds in the collections at hand, and how fast: printed, and held to the figures that are promised.

`pytest tests/performance/test_scan_figures.py -s` prints the table. The collections are no part of the repository:
`MAYFLY_SHARED_DATA` names their directory (else `../shared/data` beside the repository).
"""

# ruff: noqa: T201 - printing figures is what it is for

from __future__ import annotations

import ast
import gc
import json
import os
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mayfly.node.scanner import open_scanner
from mayfly.scan import builtin_policy, scan

if TYPE_CHECKING:
    from collections.abc import Callable

DATA = Path(os.environ.get("MAYFLY_SHARED_DATA") or Path(__file__).parents[2].parent / "shared" / "data")
DEFAULT = builtin_policy("default")


def _records(name: str) -> list[dict[str, Any]]:
    path = DATA / name
    if not path.is_file():
        pytest.skip(f"the collection {name} is not here; MAYFLY_SHARED_DATA names its directory")
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def _verdict(record: dict[str, Any]) -> str:
    return scan(record["code"].encode(), lang=record["language"], policy=DEFAULT).verdict


@pytest.mark.parametrize("lang", ["python", "bash"])
def test_risky_programs_are_flagged_in_every_category(lang: str) -> None:
    verdicts: dict[str, list[str]] = defaultdict(list)
    for record in _records("redcode_exec_train.jsonl"):
        if record["language"] == lang and not record["out_of_scope"]:
            verdicts[f"{int(record['index']):2} {record['title']}"].append(_verdict(record))
    recall = {name: sum(v in ("deny", "review") for v in found) / len(found) for name, found in verdicts.items()}
    print(f"\n{lang}: mean {sum(recall.values()) / len(recall):.1%}")
    for name, found in sorted(verdicts.items()):
        print(f"  {recall[name]:6.1%} flagged, {found.count('deny') / len(found):6.1%} denied  {name}")
    assert min(recall.values()) >= 0.5
    assert sum(recall.values()) / len(recall) >= 0.85


def test_benign_programs_are_left_alone() -> None:
    verdicts = [_verdict(record) for record in _records("benign_train.jsonl")]
    denied, reviewed = verdicts.count("deny") / len(verdicts), verdicts.count("review") / len(verdicts)
    print(f"\nbenign ({len(verdicts)}): {denied:.1%} denied, {reviewed:.1%} reviewed")
    assert "unparseable" not in verdicts
    assert denied <= 0.005
    assert denied + reviewed <= 0.03


def _of_200_lines(records: list[dict[str, Any]]) -> list[bytes]:
    """Programs joined until they have 200 lines; the denser the lines, the longer the parser takes."""
    joined: list[bytes] = []
    lines: list[str] = []
    for record in records:
        if record["language"] == "python":
            lines += record["code"].splitlines()
        if len(lines) >= 200:
            joined.append("\n".join(lines[:200]).encode())
            lines = []
    return [program for program in joined if _parses(program)]


def _parses(program: bytes) -> bool:
    try:
        ast.parse(program)
    except SyntaxError:
        return False
    return True


def _times_ms(work: Callable[[bytes], object], programs: list[bytes]) -> list[float]:
    """Each program's best of five, sorted: others use the machine too.

    As in the worker, trees are freed and cycles looked for between programs only, and what was there at the start is
    left out.
    """
    best = []
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        for program in programs:
            times = []
            for _ in range(5):
                started = time.perf_counter()
                kept = work(program)
                times.append((time.perf_counter() - started) * 1000)
                del kept
                gc.collect()
            best.append(min(times))
    finally:
        gc.enable()
        gc.unfreeze()
    return sorted(best)


def _scanned(program: bytes) -> list[object]:
    """Scans; gives what would take time to free."""
    keep: list[object] = []
    scan(program, lang="python", policy=DEFAULT, keep=keep)
    return keep


def _first_200_lines() -> list[bytes]:
    """The first 200 lines of the standard library's modules, up to where they parse: code of people, with comments."""
    found = []
    for path in sorted(Path(os.__file__).parent.glob("*.py")):
        lines = path.read_bytes().split(b"\n")
        heads = (b"\n".join(lines[:count]) for count in range(200, 150, -1))
        if len(lines) > 200 and (head := next((h for h in heads if _parses(h)), None)) is not None:
            found.append(head)
    return found


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::SyntaxWarning")
def test_times_are_printed_beside_those_of_the_parser() -> None:
    benign = _records("benign_train.jsonl")
    collections = {
        "benign, as they are": [record["code"].encode() for record in benign],
        "benign, of 200 lines": _of_200_lines(benign),
        "risky, of 200 lines": _of_200_lines(_records("redcode_exec_train.jsonl")),
        "the standard library's first 200 lines": _first_200_lines(),
    }
    for name, programs in collections.items():
        parse = _times_ms(ast.parse, programs)
        whole = _times_ms(_scanned, programs)
        middle, late = len(whole) // 2, len(whole) * 99 // 100
        print(
            f"\n{name} ({len(programs)}): p50 {whole[middle]:.2f} ms, p99 {whole[late]:.2f} ms; ast.parse alone "
            f"p50 {parse[middle]:.2f} ms, p99 {parse[late]:.2f} ms; {sum(whole) / sum(parse):.1f} times the parser"
        )
        assert all(scan(program, lang="python", policy=DEFAULT).verdict != "unparseable" for program in programs)


def test_ten_thousand_programs_are_scanned_by_two_workers() -> None:
    codes = [record["code"].encode() for record in _records("benign_train.jsonl")]
    # Each different, so that no verdict comes from the cache.
    programs = [codes[number % len(codes)] + f"\n# {number}\n".encode() for number in range(10_000)]
    left = iter(programs)
    latencies: list[float] = []

    async def work() -> None:
        async with open_scanner(workers=2) as scanner, anyio.create_task_group() as group:

            async def take() -> None:
                for program in left:
                    started = time.perf_counter()
                    verdict = await scanner.scan(program, "python", DEFAULT)
                    latencies.append((time.perf_counter() - started) * 1000)
                    assert verdict.verdict == "allow"

            for _ in range(2):
                group.start_soon(take)

    started = time.perf_counter()
    anyio.run(work)
    took = time.perf_counter() - started
    latencies.sort()
    print(
        f"\n10,000 programs, two workers: {took:.1f} s; asked and answered in "
        f"p50 {latencies[5000]:.2f} ms, p99 {latencies[9900]:.2f} ms"
    )
    assert len(latencies) == 10_000
