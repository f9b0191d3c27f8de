"""Requests from JSON and from Python values: taken when right, refused in one sentence when not."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mayfly.errors import InvalidRequestError
from mayfly.model import CODE_MAX_BYTES, Execution, ExecutionId, ExecutionRequest, Limits
from mayfly.validation import make_request, parse_request, suggestion


def test_a_minimal_request_has_the_defaults() -> None:
    assert parse_request(b'{"code":"x"}') == ExecutionRequest(code="x", limits=Limits())


def test_an_empty_program_is_a_program() -> None:
    assert make_request({"code": ""}).code == ""


SENTENCES: list[tuple[dict[str, Any], str, str]] = [
    ({}, "code", "code is missing"),
    ({"code": "", "limits": {"scratch_mib": 15}}, "limits.scratch_mib",
     "limits.scratch_mib must be 0 or from 16 to 16,384, not 15"),
    ({"code": "", "limits": {"io_mbps": 0}}, "limits.io_mbps",
     "limits.io_mbps must be a whole number from 1 to 10,000, not 0"),
    ({"code": "", "image": "python\n"}, "image", "image must not end with a newline"),
    ({"code": 5}, "code", "code must be text, not 5"),
    ({"code": "", "lang": "ruby"}, "lang", "lang must be one of bash, python, not 'ruby'"),
    ({"code": "", "limits": {"timeout_s": 0}}, "limits.timeout_s",
     "limits.timeout_s must be a number from 0.1 to 3,600, not 0"),
    ({"code": "", "limits": {"timeout_s": float("nan")}}, "limits.timeout_s",
     "limits.timeout_s must be a number from 0.1 to 3,600, not nan"),
    ({"code": "", "limits": {"timeout_s": float("inf")}}, "limits.timeout_s",
     "limits.timeout_s must be a number from 0.1 to 3,600, not inf"),
    ({"code": "", "limits": {"mem_mib": 1}}, "limits.mem_mib",
     "limits.mem_mib must be a whole number from 64 to 16,384, not 1"),
    ({"code": "", "limits": {"cpu_s": "x"}}, "limits.cpu_s",
     "limits.cpu_s must be a number from 0.1 to 3,600 or null, not 'x'"),
    ({"code": "", "limits": {"tiemout_s": 1}}, "limits.tiemout_s",
     "limits.tiemout_s is not a known field (did you mean timeout_s?)"),
    ({"code": "", "args": ["a", 4]}, "args[1]", "args[1] must be text of at most 4,096 characters, not 4"),
    ({"code": "", "args": ["a"] * 65}, "args", "args must be a list of at most 64 entries"),
    ({"code": "", "env": {"A": 4}}, "env[...]", "env[...] must be text of at most 8,192 characters"),
    ({"code": "", "stdin_stream": 1}, "stdin_stream", "stdin_stream must be true or false, not 1"),
    ({"code": "", "stdin": "x", "stdin_stream": True}, "stdin", "stdin must be absent when stdin_stream is true"),
    ({"code": "", "args": ["a\0"]}, "args[0]", "args[0] must not contain a NUL character"),
    ({"code": "", "env": {"A": "\0"}}, "env.A", "env.A must not contain a NUL character"),
    ({"code": "", "filename": "a.py\n"}, "filename", "filename must not end with a newline"),
    ({"code": "\ud800"}, "code", "code must be Unicode text; character 0 is half of a surrogate pair"),
    ({"code": "é" * CODE_MAX_BYTES}, "code", "code must be at most 256 KiB of UTF-8; this program has 524,288 bytes"),
]  # fmt: skip


@pytest.mark.parametrize(("values", "field", "sentence"), SENTENCES, ids=[case[2][:40] for case in SENTENCES])
def test_what_is_wrong_is_said_in_one_sentence(values: dict[str, Any], field: str, sentence: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        make_request(values)
    assert (caught.value.field, str(caught.value)) == (field, sentence)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"code":"\xff"}', b'{"code":"\\ud800"}', b"[" * 100_000])
def test_a_body_that_is_not_json_is_named_as_such(body: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        parse_request(body)


def test_a_long_value_is_not_repeated_in_full() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        make_request({"code": "", "lang": "x" * 10_000})
    assert len(str(caught.value)) < 200


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from([*ExecutionRequest.__struct_fields__, "other"])


@given(st.dictionaries(FIELDS, JSON_VALUES))
def test_any_values_are_a_request_or_an_invalid_request(values: dict[str, Any]) -> None:
    try:
        request = make_request(values)
    except InvalidRequestError as error:
        assert len(str(error)) < 1000  # noqa: PT017 - both outcomes are right
    else:
        assert parse_request(msgspec.json.encode(request)) == request


@given(st.binary(max_size=200) | JSON_VALUES.map(lambda value: msgspec.json.encode(_finite(value))))
def test_any_body_is_a_request_or_an_invalid_request(body: bytes) -> None:
    try:
        assert isinstance(parse_request(body), ExecutionRequest)
    except InvalidRequestError as error:
        assert error.message  # noqa: PT017 - both outcomes are right


def _finite(value: Any) -> Any:
    return value if not isinstance(value, str) else value.encode("utf-8", "replace").decode()


def test_a_result_is_ok_only_when_the_program_ended_well() -> None:
    ended = Execution(id=ExecutionId("x"), status="succeeded", exit_code=0)
    assert ended.ok
    assert not msgspec.structs.replace(ended, status="failed", exit_code=1).ok
    assert ended.to_dict()["usage"]["wall_ms"] == 0.0


def test_a_suggestion_is_made_only_for_what_is_near() -> None:
    assert suggestion("max_concurent", ["max_concurrent", "node"]) == "did you mean max_concurrent?"
    assert suggestion("zzz", ["max_concurrent", "node"]) is None
