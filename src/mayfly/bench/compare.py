"""Whether one set of figures is worse than another: interleaved runs of two commits, and a permutation test."""

from __future__ import annotations

import random
import statistics
from typing import TYPE_CHECKING, Literal

import msgspec

from mayfly.bench.metrics import METRICS

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Comparison", "compare", "permutation_p"]

_SHUFFLES = 20_000
_SEED = 20_240_601
_HIGHER_IS_BETTER = frozenset({"1/s", "clones"})


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """A metric before and after. `change` is relative: 0.1 is a tenth more. `p` is that of equal medians."""

    id: str
    before: float
    after: float
    change: float
    p: float
    verdict: Literal["worse", "better", "same"]


def compare(
    metric_id: str, before: Sequence[float], after: Sequence[float], *, p_max: float = 0.01, change_min: float = 0.05
) -> Comparison:
    """Judge a metric by a value a round of each side: other than before only where change and test both say so.

    ValueError when a side has no values.
    """
    metric = next(metric for metric in METRICS if metric.id == metric_id)
    old, new = statistics.median(before), statistics.median(after)
    change = (new - old) / abs(old) if old else 0.0
    p = permutation_p(before, after)
    verdict: Literal["worse", "better", "same"] = "same"
    if p <= p_max and abs(change) >= change_min:
        more_is_better = metric.unit in _HIGHER_IS_BETTER or metric.value_min is not None
        verdict = "better" if (change > 0) == more_is_better else "worse"
    return Comparison(id=metric_id, before=old, after=new, change=change, p=p, verdict=verdict)


def permutation_p(one: Sequence[float], other: Sequence[float]) -> float:
    """How often a random division of all values has medians at least as far apart; the same for the same values.

    Nothing is assumed of how the values are spread. ValueError when a side has none.
    """
    if not one or not other:
        raise ValueError("both sides need values")
    seen = abs(statistics.median(one) - statistics.median(other))
    values = [*one, *other]
    shuffler = random.Random(_SEED)  # noqa: S311 - a test of statistics, repeatable
    as_far = 0
    for _ in range(_SHUFFLES):
        shuffler.shuffle(values)
        apart = abs(statistics.median(values[: len(one)]) - statistics.median(values[len(one) :]))
        as_far += apart >= seen - 1e-12
    return (as_far + 1) / (_SHUFFLES + 1)
