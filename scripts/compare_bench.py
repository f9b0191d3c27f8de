#!/usr/bin/env python3
"""Compare the benchmark's figures of two commits: quick runs in turns, judged by a permutation test.

    scripts/compare_bench.py BEFORE AFTER [--only ID]... [--rounds N]

Each commit is checked out into a temporary worktree. Runs alternate, so that whatever else the machine does falls on
both. Exit code 1 when a metric is worse by 5 % or more and chance is an unlikely reason (p ≤ 0.01).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from mayfly.bench.compare import compare  # noqa: E402 - found by the line above

if TYPE_CHECKING:
    from collections.abc import Iterator

_RUN_DEADLINE_S = 900
_DEFAULT = ("clone_ready_ms", "clone_cold_ms", "destroy_ms", "api_overhead_ms")


@contextlib.contextmanager
def _checked_out(commit: str, directory: Path) -> Iterator[Path]:
    git = ["git", "-C", str(ROOT), "worktree"]
    subprocess.run([*git, "add", "--detach", str(directory), commit], check=True, capture_output=True)
    try:
        yield directory
    finally:
        subprocess.run([*git, "remove", "--force", str(directory)], check=True, capture_output=True)


def _measure(tree: Path, ids: list[str]) -> dict[str, float]:
    options = [word for metric in ids for word in ("--only", metric)]
    done = subprocess.run(
        [sys.executable, "-m", "mayfly", "bench", "--quick", "--json", *options],
        env={**os.environ, "PYTHONPATH": str(tree / "src")},
        cwd=tree,
        stdout=subprocess.PIPE,
        timeout=_RUN_DEADLINE_S,
        check=True,
    )
    report = json.loads(done.stdout)
    for name, why in report["host"]["not_measured"].items():
        sys.exit(f"{name} cannot be measured here: {why}")
    return {line["id"]: line["p50"] for line in report["metrics"]}


def main() -> int:
    """Measure, print a line a metric, and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before")
    parser.add_argument("after")
    parser.add_argument("--only", action="append", metavar="ID")
    parser.add_argument("--rounds", type=int, default=12)
    asked = parser.parse_args()
    if not 5 <= asked.rounds <= 1000:
        parser.error("--rounds must be between 5 and 1000: fewer cannot tell a difference from chance")
    ids = asked.only or list(_DEFAULT)
    values: dict[str, dict[str, list[float]]] = {name: {"before": [], "after": []} for name in ids}
    with (
        tempfile.TemporaryDirectory(prefix="mayfly-compare-") as directory,
        _checked_out(asked.before, Path(directory, "before")) as before,
        _checked_out(asked.after, Path(directory, "after")) as after,
    ):
        trees = {"before": before, "after": after}
        for number in range(asked.rounds):
            for side in ("before", "after") if number % 2 == 0 else ("after", "before"):
                for name, value in _measure(trees[side], ids).items():
                    values[name][side].append(value)
            sys.stderr.write(f"round {number + 1} of {asked.rounds}\n")
    results = [compare(name, sides["before"], sides["after"]) for name, sides in values.items()]
    for result in results:
        sys.stdout.write(
            f"{result.id:<24} {result.before:>10.4g} → {result.after:<10.4g} {result.change:>+7.1%}  "
            f"p={result.p:.4f}  {result.verdict}\n"
        )
    return 1 if any(result.verdict == "worse" for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
