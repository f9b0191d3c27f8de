"""The node's templates as its users see them: listed, made ahead of the first use, and removed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

import anyio
import anyio.to_thread
import msgspec

from mayfly.errors import CorruptError, InvalidRequestError, NotFoundError, VmmTimeoutError
from mayfly.model import Limits
from mayfly.pool.size import Size

if TYPE_CHECKING:
    from collections.abc import Callable

    from mayfly.node.admission import Admission
    from mayfly.pool.pool import Pool
    from mayfly.pool.templates import TemplateInfo, Templates

__all__ = ["NodeTemplates", "TemplateRequest"]

_KEY = re.compile(r"[0-9a-f]{4,32}")
_BUILD_DEADLINE_S = 180.0
_SHOWN_KEY = 12
_SHOWN_MAX = 8
"""So many templates an error names."""


class TemplateRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a template is to be made for; the ranges are those of `Limits`."""

    image: Annotated[str, msgspec.Meta(max_length=32, pattern=r"^[a-z0-9][a-z0-9-]*$")] = "python"
    mem_mib: Annotated[int, msgspec.Meta(ge=64, le=16384)] = 256
    vcpus: Annotated[int, msgspec.Meta(ge=1, le=8)] = 1
    scratch_mib: Annotated[int, msgspec.Meta(ge=0, le=16384)] = 0


class NodeTemplates:
    """`check_image` raises InvalidRequestError for an image that the node does not have."""

    def __init__(
        self, templates: Templates, pool: Pool, admission: Admission, *, check_image: Callable[[str], object]
    ) -> None:
        self._templates = templates
        self._pool = pool
        self._admission = admission
        self._check_image = check_image

    def pool(self) -> dict[str, Any]:
        """The clones of them that wait, by size, and what the node's machines take."""
        return self._pool.state()

    async def list(self) -> list[dict[str, Any]]:
        """Every template in the store, used last first, with the clones of it that wait."""
        infos = await anyio.to_thread.run_sync(self._templates.list)
        return [self._described(info) for info in infos]

    async def named(self, name: str) -> TemplateInfo:
        """The one template whose key begins with `name`, looked over, so that machines of its size come from it.

        InvalidRequestError, with those there are, when none or several begin so, and for one of other parts than the
        node's.
        """
        infos = await anyio.to_thread.run_sync(self._templates.list)
        found = [info for info in infos if _KEY.fullmatch(name) and info.key.startswith(name)]
        if len(found) != 1:
            several = f"the keys of {len(found)} templates begin with {name}: give more of it"
            wrong = several if found else f"no template has a key that begins with {name!r} (4 digits of it at least)"
            raise InvalidRequestError(wrong, field="template", hint=_listed(found or infos))
        (info,) = found
        if not info.current:
            raise InvalidRequestError(
                f"template {info.key[:_SHOWN_KEY]} was made of other parts (image, kernel, agent, Firecracker) than"
                " this node has now",
                field="template",
                hint=_successor(info, infos),
            )
        # Damaged or gone since: it is made again, and the machine is booted, as for a size that nobody named.
        await self._templates.prepare(_size_of(info))
        return info

    async def build(self, request: TemplateRequest) -> dict[str, Any]:
        """Make it unless it is there. InvalidRequestError, CapacityError, and what the boot of a machine raises."""
        size = Size(request.mem_mib, request.vcpus, request.image, request.scratch_mib)
        self._check_image(request.image)
        limits = Limits(mem_mib=size.mem_mib, vcpus=size.vcpus, scratch_mib=size.scratch_mib)
        self._admission.check(limits)
        if not self._templates.worthwhile(size):
            raise InvalidRequestError(
                f"mem_mib is {size.mem_mib}: machines of more than 2048 MiB are booted, not restored", field="mem_mib"
            )
        try:
            with anyio.fail_after(_BUILD_DEADLINE_S):
                if await self._templates.prepare(size) is None:
                    async with self._admission.slot(limits, image=size.image):
                        await self._templates.build(size)
        except TimeoutError as error:
            raise VmmTimeoutError(f"the template was not made within {_BUILD_DEADLINE_S:g} s") from error
        key = self._templates.key(size)
        found = [info for info in await anyio.to_thread.run_sync(self._templates.list) if info.key == key]
        if not found:
            raise CorruptError("the template was made and is gone again: is the budget for templates too small?")
        return self._described(found[0])

    async def remove(self, key: str) -> dict[str, Any]:
        """Remove the one template whose key begins so. Its waiting clones are destroyed first.

        NotFoundError, InvalidRequestError when several begin so, CapacityError while it is being made.
        """
        if not _KEY.fullmatch(key):
            raise InvalidRequestError("key must be 4 to 32 hexadecimal digits of a template's key", field="key")
        infos = await anyio.to_thread.run_sync(self._templates.list)
        found = [info for info in infos if info.key.startswith(key)]
        if not found:
            raise NotFoundError(f"no template's key begins with {key}", field="key")
        if len(found) > 1:
            raise InvalidRequestError(f"{len(found)} templates' keys begin with {key}; give more of it", field="key")
        waiting = await self._pool.give_up(found[0].key)
        await anyio.to_thread.run_sync(self._templates.remove, found[0].key)
        return {**self._described(found[0]), "waiting": waiting}

    def _described(self, info: TemplateInfo) -> dict[str, Any]:
        shape: dict[str, Any] = msgspec.to_builtins(info)
        return {**shape, "waiting": self._pool.waiting(info.key)}


def _size_of(info: TemplateInfo) -> Size:
    return Size(info.mem_mib, info.vcpus, info.image, info.scratch_mib)


def _listed(infos: list[TemplateInfo]) -> str:
    """Those that can be named, used last first."""
    infos = sorted(infos, key=lambda info: not info.current)
    said = [_told(info) for info in infos[:_SHOWN_MAX]]
    more = [f"and {len(infos) - _SHOWN_MAX} more"] if len(infos) > _SHOWN_MAX else []
    return f"there are {', '.join([*said, *more])}" if said else "there are none; `mayfly template build` makes one"


def _told(info: TemplateInfo) -> str:
    disk = f", {info.scratch_mib} MiB disk" if info.scratch_mib else ""
    old = "" if info.current else ", of other parts"
    return f"{info.key[:_SHOWN_KEY]} ({info.image}, {info.mem_mib} MiB, {info.vcpus} CPU{disk}{old})"


def _successor(info: TemplateInfo, infos: list[TemplateInfo]) -> str:
    """What to name in place of a template that is not current."""
    same = [other for other in infos if other.current and _size_of(other) == _size_of(info)]
    if same:
        return f"{same[0].key[:_SHOWN_KEY]} is its like of now"
    size = f"--image {info.image} --mem {info.mem_mib} --vcpus {info.vcpus} --scratch {info.scratch_mib}"
    return f"`mayfly template build {size}` makes its like"
