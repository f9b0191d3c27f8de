"""What each Firecracker version is asked for: no field that it does not know, since it refuses those."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mayfly.errors import VmmError
from mayfly.vmm.versions import (
    FirecrackerVersion,
    known_load_fields,
    load_request,
    resume_after_pause_works,
    snapshot_format,
)

_ALWAYS = {"snapshot_path", "mem_backend", "mem_file_path", "enable_diff_snapshots", "resume_vm", "network_overrides"}
SCHEMAS = {
    "1.12.1": _ALWAYS,
    "1.13.1": _ALWAYS | {"track_dirty_pages"},
    "1.14.3": _ALWAYS | {"track_dirty_pages"},
    "1.14.4": _ALWAYS | {"track_dirty_pages", "clock_realtime"},
    "1.15.0": _ALWAYS | {"track_dirty_pages"},
    "1.15.1": _ALWAYS | {"track_dirty_pages", "clock_realtime"},
    "1.16.0": _ALWAYS | {"track_dirty_pages", "clock_realtime", "vsock_override"},
    "1.16.1": _ALWAYS | {"track_dirty_pages", "clock_realtime", "vsock_override"},
    "1.17.0": _ALWAYS | {"track_dirty_pages", "clock_realtime", "vsock_override", "huge_pages"},
}
"""Properties of the load request in each version's API description, written down by hand."""
_OPTIONS = {
    "clock_realtime": True,
    "vsock_override": {"uds_path": "/v.sock"},
    "network_overrides": [{"iface_id": "eth0", "host_dev_name": "tap0"}],
    "huge_pages": "None",
    "track_dirty_pages": True,
}


def _version(text: str) -> FirecrackerVersion:
    return FirecrackerVersion(*map(int, text.split(".")))


@pytest.mark.parametrize("text", SCHEMAS)
def test_the_load_request_has_only_what_the_version_takes(text: str) -> None:
    version = _version(text)
    assert known_load_fields(version) == SCHEMAS[text]
    body = load_request(version)
    assert set(body) <= SCHEMAS[text]
    assert body["resume_vm"] is False
    assert body.get("clock_realtime", False) is ("clock_realtime" in SCHEMAS[text])


@pytest.mark.parametrize("text", SCHEMAS)
@pytest.mark.parametrize("option", _OPTIONS)
def test_an_option_that_the_version_lacks_is_refused_by_name(text: str, option: str) -> None:
    options = {option: _OPTIONS[option]}
    if option in SCHEMAS[text]:
        assert load_request(_version(text), options=options)[option] == _OPTIONS[option]
        return
    with pytest.raises(VmmError, match=option) as caught:
        load_request(_version(text), options=options)
    assert caught.value.field == option


@given(version=st.tuples(st.just(1), st.integers(12, 30), st.integers(0, 9)))
def test_a_later_minor_version_never_takes_less(version: tuple[int, int, int]) -> None:
    major, minor, _ = version
    assert known_load_fields(FirecrackerVersion(*version)) <= known_load_fields(
        FirecrackerVersion(major, max(17, minor + 1), 0)
    )


@pytest.mark.parametrize(
    ("text", "number"),
    [("1.12.0", 6), ("1.12.1", 6), ("1.13.0", 8), ("1.14.4", 8), ("1.15.1", 9), ("1.16.1", 10), ("1.17.0", 10)],
)
def test_the_snapshot_format_is_the_versions(text: str, number: int) -> None:
    assert snapshot_format(_version(text)) == number


@pytest.mark.parametrize("text", SCHEMAS)
def test_pausing_and_resuming_in_place_is_refused_where_it_kills_the_vsock(text: str) -> None:
    assert resume_after_pause_works(_version(text)) is (text not in {"1.16.0", "1.16.1"})
