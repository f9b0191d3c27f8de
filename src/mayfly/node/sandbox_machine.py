"""What a new sandbox's machine is to be: image and size as they were asked for, or as its template has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

from mayfly.errors import InvalidRequestError
from mayfly.model import Limits, image_for

if TYPE_CHECKING:
    from mayfly.pool.templates import TemplateInfo
    from mayfly.sandbox_model import CreateSandbox

__all__ = ["MachineWish", "TemplateIndex", "machine_wish"]

_SIZE = {"mem_mib": "{} MiB of memory", "vcpus": "{} processors", "scratch_mib": "a scratch disk of {} MiB"}
"""The limits that a template fixes, and how they are said."""


class TemplateIndex(Protocol):
    """Where templates are found by their names."""

    async def named(self, name: str) -> TemplateInfo:
        """The one whose key begins so, fit to be cloned; InvalidRequestError naming `template`."""


class MachineWish(msgspec.Struct, frozen=True, kw_only=True):
    """The machine of one sandbox. `template` is the whole key of the one that was asked for."""

    image: str
    limits: Limits
    template: str | None = None


async def machine_wish(request: CreateSandbox, templates: TemplateIndex | None) -> MachineWish:
    """What `request` asks for. InvalidRequestError for a template that cannot be used, or that its limits contradict.

    `templates` None: machines do not come from templates here.
    """
    given = msgspec.structs.asdict(request.limits)
    limits = Limits(**{name: value for name, value in given.items() if value is not msgspec.UNSET})
    if request.template is None:
        return MachineWish(image=image_for(request.lang, request.image), limits=limits)
    if templates is None:
        raise InvalidRequestError(
            f"there is no template {request.template}: this node's machines do not come from templates",
            field="template",
        )
    found = await templates.named(request.template)
    short = found.key[:12]
    if request.image not in (None, found.image):
        raise InvalidRequestError(
            f"image is {request.image}, but template {short} starts from {found.image}: leave it out", field="image"
        )
    size = {name: getattr(found, name) for name in _SIZE}
    for name, value in size.items():
        if given[name] not in (msgspec.UNSET, value):
            raise InvalidRequestError(
                f"limits.{name} is {given[name]}, but template {short} has {_SIZE[name].format(value)}: leave it out",
                field=f"limits.{name}",
            )
    return MachineWish(image=found.image, limits=msgspec.structs.replace(limits, **size), template=found.key)
