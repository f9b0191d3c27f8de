"""The codec of the guest protocol: what it takes, what it refuses, and how much it keeps."""

from __future__ import annotations

import itertools
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mayfly.guest import frames
from mayfly.guest.frames import (
    DATA_TYPES,
    FROM_GUEST,
    FROM_HOST,
    HEADER_BYTES,
    JSON_MAX_DEPTH,
    PAYLOAD_MAX_BYTES,
    Frame,
    FrameDecoder,
    FrameError,
    FrameType,
    encode,
)

_ROOT = Path(__file__).resolve().parents[2]
_VECTORS = json.loads((_ROOT / "protocol" / "vectors" / "guest-frames.json").read_text())
_DIRECTIONS = {"from_host": FROM_HOST, "from_guest": FROM_GUEST}
_ALL_TYPES = FROM_HOST | FROM_GUEST


def _cases(group: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("vector", _VECTORS[group], ids=lambda vector: vector["name"])


def _decoder(vector: dict[str, Any]) -> FrameDecoder:
    return FrameDecoder(_DIRECTIONS[vector["direction"]])


@_cases("frames")
def test_golden_frames_decode_to_what_the_vectors_say(vector: dict[str, Any]) -> None:
    wire = bytes.fromhex(vector["hex"])
    (frame,) = _decoder(vector).feed(wire)
    if "json" in vector:
        assert frame.json() == vector["json"]
    else:
        assert frame.payload == bytes.fromhex(vector["payload_hex"])
        assert encode(frame.type, frame.payload) == wire


@_cases("frames")
def test_golden_frames_survive_being_encoded_again(vector: dict[str, Any]) -> None:
    (frame,) = _decoder(vector).feed(bytes.fromhex(vector["hex"]))
    payload = frame.json() if "json" in vector else frame.payload
    (again,) = _decoder(vector).feed(encode(frame.type, payload))
    assert (again.json() if "json" in vector else again.payload) == payload


@_cases("bad_frames")
def test_bad_headers_are_refused_before_any_payload_is_kept(vector: dict[str, Any]) -> None:
    decoder = _decoder(vector)
    with pytest.raises(FrameError, match=vector["error"]):
        decoder.feed(bytes.fromhex(vector["hex"])[:HEADER_BYTES])
    assert decoder.buffered == 0


@_cases("bad_json")
def test_bad_control_payloads_are_refused(vector: dict[str, Any]) -> None:
    (frame,) = _decoder(vector).feed(bytes.fromhex(vector["hex"]))
    with pytest.raises(FrameError, match=vector["error"]):
        frame.json()


@_cases("frames")
def test_the_plain_json_module_gives_the_same_answers(vector: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "_scan", None)
    monkeypatch.setattr(frames, "_write", None)
    (frame,) = _decoder(vector).feed(bytes.fromhex(vector["hex"]))
    if "json" in vector:
        assert frame.json() == vector["json"]
        assert json.loads(encode(frame.type, frame.json())[HEADER_BYTES:]) == vector["json"]


@_cases("bad_json")
def test_the_plain_json_module_refuses_the_same(vector: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "_scan", None)
    (frame,) = _decoder(vector).feed(bytes.fromhex(vector["hex"]))
    with pytest.raises(FrameError, match=vector["error"]):
        frame.json()


def test_every_type_of_the_protocol_page_exists_with_its_number() -> None:
    page = (_ROOT / "protocol" / "guest-frames.md").read_text()
    rows = [line.split("|")[1:3] for line in page.splitlines() if line.startswith("| 0x")]
    told = {int(number.strip(), 16): name.strip() for number, name in rows}
    assert told == {v: k for k, v in vars(FrameType).items() if isinstance(v, int)}


def _payloads(frame_type: int) -> st.SearchStrategy[bytes]:
    if frame_type in DATA_TYPES:
        return st.binary(min_size=0 if frame_type == FrameType.STDIN else 1, max_size=300)
    return st.dictionaries(st.text(max_size=5), st.integers(-(2**63), 2**63 - 1), max_size=5).map(
        lambda shape: json.dumps(shape).encode()
    )


_frames = st.sampled_from(sorted(_ALL_TYPES)).flatmap(
    lambda number: _payloads(number).map(lambda payload: Frame(number, payload))
)


@given(st.lists(_frames, max_size=8), st.lists(st.integers(0, 2000), max_size=20))
def test_frames_come_back_however_the_stream_is_cut(sent: list[Frame], cuts: list[int]) -> None:
    wire = b"".join(encode(frame.type, frame.payload) for frame in sent)
    edges = [0, *sorted(min(cut, len(wire)) for cut in cuts), len(wire)]
    decoder = FrameDecoder(_ALL_TYPES)
    got = [frame for start, end in itertools.pairwise(edges) for frame in decoder.feed(wire[start:end])]
    assert got == sent
    assert decoder.buffered == 0


@given(st.lists(st.binary(max_size=200), max_size=20))
def test_garbage_raises_frame_errors_only_and_keeps_no_more_than_one_frame(pieces: list[bytes]) -> None:
    decoder = FrameDecoder(_ALL_TYPES)
    for piece in pieces:
        try:
            for frame in decoder.feed(piece):
                if frame.type not in DATA_TYPES:
                    frame.json()
        except FrameError:
            pass
        assert decoder.buffered <= HEADER_BYTES + PAYLOAD_MAX_BYTES


@given(st.binary(max_size=400))
def test_any_control_payload_decodes_to_an_object_or_a_frame_error(payload: bytes) -> None:
    try:
        shape = Frame(FrameType.EXIT, payload).json()
    except FrameError:
        return
    assert isinstance(shape, dict)


_json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=20,
)


@given(st.dictionaries(st.text(max_size=5), _json_values, max_size=4))
def test_what_can_be_encoded_and_is_in_range_decodes_to_itself(shape: dict[str, Any]) -> None:
    try:
        wire = encode(FrameType.EXIT, shape)
        (frame,) = FrameDecoder(FROM_GUEST).feed(wire)
        assert frame.json() == shape
    except FrameError:
        assert not _in_range(shape)


def _in_range(value: object) -> bool:
    if isinstance(value, dict):
        return all(map(_in_range, value.values()))
    if isinstance(value, list):
        return all(map(_in_range, value))
    if isinstance(value, float):
        return math.isfinite(value)
    return not isinstance(value, int) or -(2**63) <= value < 2**63


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_nesting_is_counted_exactly(opening: str) -> None:
    def nested(depth: int) -> Frame:
        closing = "]" if opening == "[" else "}"
        inner = opening * (depth - 1) + "1" + closing * (depth - 1)
        return Frame(FrameType.EXIT, ('{"a":' + inner + "}").encode())

    nested(JSON_MAX_DEPTH).json()
    with pytest.raises(FrameError, match="deeper"):
        nested(JSON_MAX_DEPTH + 1).json()


def test_many_shallow_brackets_are_no_depth() -> None:
    shape: dict[str, Any] = {"a": [[] for _ in range(500)]}
    assert Frame(FrameType.EXIT, json.dumps(shape).encode()).json() == shape


def test_a_stream_that_broke_stays_broken() -> None:
    decoder = FrameDecoder(FROM_HOST)
    with pytest.raises(FrameError):
        decoder.feed(b"\xff" * 8)
    with pytest.raises(FrameError):
        decoder.feed(encode(FrameType.PING, {}))


@pytest.mark.parametrize(
    ("frame_type", "payload", "expected"),
    [
        (0x42, b"x", "does not exist"),
        (FrameType.STDOUT, b"x" * (PAYLOAD_MAX_BYTES + 1), "at most"),
        (FrameType.STDOUT, b"", "at least"),
        (FrameType.STDOUT, {"a": 1}, "raw bytes"),
        (FrameType.EXIT, {"a": float("nan")}, "JSON"),
        (FrameType.EXIT, {"a": object()}, "JSON"),
        (FrameType.EXIT, {"a": "x" * PAYLOAD_MAX_BYTES}, "at most"),
    ],
)
def test_what_breaks_a_rule_is_not_encoded(frame_type: int, payload: Any, expected: str) -> None:
    with pytest.raises(FrameError, match=expected):
        encode(frame_type, payload)


def test_the_codec_starts_without_enum_re_and_json() -> None:
    """It is imported at every cold boot, under a CPU that may be emulated."""
    heavy = {"enum", "re", "json", "typing", "asyncio"}
    code = f"import sys, frames; print(sorted(set(sys.modules) & set({sorted(heavy)!r})))"
    command = [
        sys.executable,
        "-SE",
        "-c",
        f"import sys; sys.path.insert(0, {str(Path(frames.__file__).parent)!r}); {code}",
    ]
    found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    assert found.stdout.strip() == "[]"
