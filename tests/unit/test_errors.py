"""The error tree: one root, stable codes, the same error on both sides of HTTP."""

from __future__ import annotations

import pytest

from mayfly import errors
from mayfly.errors import CapacityError, MayflyError, error_from_code

KINDS = [getattr(errors, name) for name in errors.__all__ if name.endswith("Error")]


def test_every_error_is_of_the_tree_and_in_the_drawing() -> None:
    for kind in KINDS:
        assert issubclass(kind, MayflyError)
        assert kind.__name__ in (errors.__doc__ or "")


def test_codes_are_unique() -> None:
    assert len({kind.code for kind in KINDS}) == len(KINDS)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: str(kind.code))
def test_an_error_survives_its_way_over_http(kind: type[MayflyError]) -> None:
    error = kind("what", field="code", hint="do this", phase="scan", retryable=True)
    fields = error.to_dict()
    again = error_from_code(fields.pop("code"), fields.pop("message"), **fields)
    assert type(again) is kind
    assert again.to_dict() == error.to_dict()
    assert str(again) == "what (do this)"


def test_retry_after_survives_too_and_nonsense_does_not() -> None:
    again = error_from_code("capacity", "full", retry_after_s=7)
    assert isinstance(again, CapacityError)
    assert again.retry_after_s == 7.0
    assert error_from_code("capacity", "full", retry_after_s="soon", args="x").message == "full"


def test_an_unknown_code_is_a_plain_error() -> None:
    assert type(error_from_code("from_the_future", "x")) is MayflyError
