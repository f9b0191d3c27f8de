"""All contexts of a sandbox by their names."""

from __future__ import annotations

from mayfly.agent.fields import RequestError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from mayfly.agent.contexts import Context

__all__ = ["Contexts"]

_CONTEXTS_MAX = 32


class Contexts:
    """All contexts by their ids."""

    def __init__(self) -> None:
        self._by_id: dict[str, Context] = {}

    def all(self) -> list[Context]:
        """In the order of their making."""
        return list(self._by_id.values())

    def get(self, context_id: str) -> Context:
        """Raises RequestError where there is none."""
        try:
            return self._by_id[context_id]
        except KeyError:
            raise RequestError("context_not_found", f"there is no context {context_id}") from None

    def add(self, context: Context, on_ready: Callable[[str], None]) -> None:
        """Starts it; it is gone again when it does not get ready. Raises RequestError."""
        if context.id in self._by_id:
            raise RequestError("exists", f"there is a context {context.id} already")
        if len(self._by_id) >= _CONTEXTS_MAX:
            raise RequestError("busy", f"there are {_CONTEXTS_MAX} contexts already")

        def ready(failure: str) -> None:
            if failure:
                self._by_id.pop(context.id, None)
            on_ready(failure)

        context.start(ready)
        self._by_id[context.id] = context

    def remove(self, context_id: str) -> None:
        """Ends it. Raises RequestError where there is none."""
        context = self.get(context_id)
        del self._by_id[context_id]
        context.remove()
