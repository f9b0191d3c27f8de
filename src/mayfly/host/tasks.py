"""Small additions to structured concurrency."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["single_error"]


@contextlib.contextmanager
def single_error() -> Iterator[None]:
    """Around a task group whose tasks race: the first leaf of an exception group is raised alone.

    The group stays visible as the context. Use it where the other failures follow from the first.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        leaf: BaseException = group
        while isinstance(leaf, BaseExceptionGroup):
            leaf = leaf.exceptions[0]
        raise leaf from leaf.__cause__
