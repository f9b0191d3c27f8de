"""Whatever callers send about sandboxes is understood or refused by name, and nothing else."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mayfly import file_model, sandbox_model
from mayfly.errors import InvalidRequestError
from mayfly.server import files, sockets
from mayfly.validation import check_values, parse_values

REQUESTS: list[Any] = [
    value
    for module in (sandbox_model, file_model)
    for value in vars(module).values()
    if isinstance(value, type)
    and issubclass(value, msgspec.Struct)
    and value.__module__ == module.__name__
    and value.__struct_config__.forbid_unknown_fields
]
NAMES = sorted({field for struct in REQUESTS for field in struct.__struct_fields__})
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES) | st.text(), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize("struct", REQUESTS, ids=lambda struct: str(struct.__name__))
@settings(deadline=None)
@given(body=st.binary(max_size=100) | JSON.map(msgspec.json.encode))
def test_any_body_is_a_request_or_refused_by_name(struct: Any, body: bytes) -> None:
    try:
        made = parse_values(body, struct)
    except InvalidRequestError:
        return
    assert isinstance(made, struct)


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"envs": {"A\n": "x"}}, "name in envs"),
        ({"envs": {"A": "x\0"}}, "envs.A"),
        ({"metadata": {"a\0": "x"}}, "name in metadata"),
        ({"policy": "default\n"}, "policy"),
    ],
    ids=str,
)
def test_what_patterns_let_pass_is_refused_all_the_same(values: Any, field: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        check_values(msgspec.convert(values, sandbox_model.CreateSandbox))
    assert caught.value.field == field


@settings(deadline=None)
@given(st.integers(0, 10**15), st.integers(0, 10**15) | st.none(), st.integers(0, 10**12))
def test_a_range_is_within_the_file_or_none(first: int, last: int | None, size: int) -> None:
    span = files._span(str(first), "" if last is None else str(last), size)
    if span is not None:
        assert 0 <= span[0] <= span[1] < size
        assert span[0] == first


@settings(deadline=None)
@given(st.integers(0, 10**15), st.integers(0, 10**12))
def test_a_range_from_the_end_is_within_the_file_or_none(count: int, size: int) -> None:
    span = files._span("", str(count), size)
    if span is not None:
        assert span[1] == size - 1
        assert span[1] - span[0] + 1 == min(count, size)


@settings(deadline=None)
@given(st.text() | JSON.map(lambda value: msgspec.json.encode(value).decode()))
def test_any_text_on_a_socket_is_a_message_or_refused(text: str) -> None:
    try:
        told = sockets._told(text)
    except InvalidRequestError:
        return
    assert told.resize is None or 1 <= told.resize.cols <= 2000
