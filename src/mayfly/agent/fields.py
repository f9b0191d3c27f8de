"""Fields of the host's requests, checked one by one. Everything wrong is a `RequestError` naming the field."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["RequestError", "bad", "environment", "number", "optional_number", "text", "truth"]


class RequestError(Exception):
    """A request that cannot be served: a stable `code`, and a message that names the field."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def bad(field: str, expected: str) -> RequestError:
    """An error that names the field."""
    return RequestError("bad_request", f"{field}: expected {expected}")


def text(shape: dict[str, Any], field: str, longest: int) -> str:
    """A text of at most `longest` characters without NUL. Raises RequestError, as all of these."""
    value = shape.get(field)
    if not isinstance(value, str) or "\0" in value or len(value) > longest:
        raise bad(field, f"text of at most {longest} characters without NUL")
    return value


def number(shape: dict[str, Any], field: str, least: float, most: float) -> float:
    """A number within the range, both ends included."""
    value = shape.get(field)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not least <= value <= most:
        raise bad(field, f"a number from {least} to {most}")
    return value


def optional_number(shape: dict[str, Any], field: str, least: float, most: float) -> float | None:
    """The same, or None where the field is missing or null."""
    return None if shape.get(field) is None else number(shape, field, least, most)


def truth(shape: dict[str, Any], field: str) -> bool:
    """Whether the field is there and true."""
    value = shape.get(field, False)
    if not isinstance(value, bool):
        raise bad(field, "true or false")
    return value


def environment(shape: dict[str, Any]) -> dict[str, str]:
    """The variables under `env`: names to texts."""
    env = shape.get("env", {})
    if not isinstance(env, dict):
        raise bad("env", "an object")
    for name, value in env.items():
        if not isinstance(value, str) or "\0" in value or not name or "=" in name or "\0" in name:
            raise bad("env", "texts without NUL, under names without '='")
    return env
