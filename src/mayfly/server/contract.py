"""What the HTTP application asks of a node: the part of `mayfly.node.service.Node` that it uses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mayfly.model import Event, Execution, ExecutionId, ExecutionRequest
    from mayfly.node.sandboxes import Sandboxes
    from mayfly.node.templates import TemplateRequest

__all__ = ["NodeService", "TemplateService"]


class TemplateService(Protocol):
    """A node's templates, as the server sees them."""

    async def list(self) -> list[dict[str, Any]]:
        """All in the store."""

    async def build(self, request: TemplateRequest) -> dict[str, Any]:
        """Make one unless it is there."""

    async def remove(self, key: str) -> dict[str, Any]:
        """Remove the one whose key begins so; NotFoundError."""


class NodeService(Protocol):
    """A node, as the server sees it."""

    @property
    def sandboxes(self) -> Sandboxes | None:
        """The sandboxes that keep state; None where there are none."""

    async def execute(
        self, request: ExecutionRequest, *, on_event: Callable[[Event], Awaitable[None]] | None = None
    ) -> Execution:
        """Run the program; InvalidRequestError or CapacityError before it is accepted. Cancelling destroys the VM."""

    async def feed_stdin(self, execution_id: ExecutionId, data: bytes, *, eof: bool) -> None:
        """Hand bytes to the program's standard input, waiting until it takes them; NotFoundError."""

    def find(self, execution_id: ExecutionId) -> Execution:
        """A finished execution; NotFoundError."""

    def host(self) -> dict[str, Any]:
        """What this node runs on."""

    def pool(self) -> dict[str, Any]:
        """The clones that wait ready, by size, and what machines take."""

    @property
    def templates(self) -> TemplateService:
        """The templates that clones come from; NotFoundError where there are none."""

    def health(self) -> dict[str, Any]:
        """`status`, `version`, `api`, `code_hash`, `running`."""
