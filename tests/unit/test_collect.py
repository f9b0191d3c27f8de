from __future__ import annotations

import base64
import itertools
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from mayfly.node.collect import OutputCollector

if TYPE_CHECKING:
    from mayfly.model import Output


def _bytes_of(event: Output | None) -> bytes:
    if event is None:
        return b""
    return event.text.encode() if event.text is not None else base64.b64decode(event.base64 or "")


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=8))
def test_events_carry_exactly_the_bytes_that_came_however_they_were_cut(data: bytes, cuts: list[int]) -> None:
    collector = OutputCollector("stdout", 1000)
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    seen = b"".join(_bytes_of(collector.add(data[a:b])) for a, b in itertools.pairwise(edges))
    assert seen + _bytes_of(collector.flush()) == data
    assert collector.text() == data.decode("utf-8", "replace")


@given(st.text(max_size=60), st.integers(1, 5))
def test_text_stays_text_when_its_characters_are_cut(text: str, step: int) -> None:
    data = text.encode("utf-8", "surrogatepass").decode("utf-8", "replace").encode()
    collector = OutputCollector("stderr", 10_000)
    events = [collector.add(data[i : i + step]) for i in range(0, len(data), step)]
    assert all(event.base64 is None for event in events if event is not None)
    assert collector.flush() is None


def test_more_than_the_limit_is_dropped_and_said() -> None:
    collector = OutputCollector("stdout", 5)
    assert _bytes_of(collector.add(b"1234")) == b"1234"
    assert not collector.truncated
    assert _bytes_of(collector.add(b"5678")) == b"5"
    assert collector.truncated
    assert collector.add(b"9") is None
    assert collector.text() == "12345"


def test_a_limit_of_zero_keeps_nothing() -> None:
    collector = OutputCollector("stdout", 0)
    assert collector.add(b"x") is None
    assert collector.truncated
