"""What is wrong with a value, said in one sentence that names the field and what was expected.

msgspec checks types and ranges; this turns its complaint into an `InvalidRequestError` (or another class of that
branch) and adds the checks that a schema cannot express. Client and server use the same functions, so a mistake
reads the same wherever it is found.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from mayfly.errors import InvalidRequestError
from mayfly.model import CODE_MAX_BYTES, ExecutionRequest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = [
    "SCRATCH_LEAST_MIB",
    "check_request",
    "check_values",
    "convert_values",
    "make_request",
    "parse_request",
    "parse_values",
    "suggestion",
]

T = TypeVar("T")

SCRATCH_LEAST_MIB = 16
"""The smallest disk that a file system fits on with room to spare."""
_SHOWN_CHARS = 40
_LOCATED = re.compile(r"^(?P<what>.*?)(?: - at (?P<key>`key` in )?`\$\.?(?P<path>.*)`)?$", re.DOTALL)
_FIELD_IN_WHAT = re.compile(r"(?P<kind>unknown|missing required) field `(?P<name>.*)`", re.DOTALL)
_NAME_FIELD = re.compile(r"image|template|policy|context|name in envs")
_STEP = re.compile(r"\.\.\.|[^.\[\]]+")


def parse_request(body: bytes) -> ExecutionRequest:
    """The request in a JSON body; InvalidRequestError naming the field. The caller has bounded `body`."""
    return check_request(_decoded(body, ExecutionRequest))


def parse_values(body: bytes, into: type[T]) -> T:
    """A struct of `mayfly.sandbox_model` in a JSON body, as `parse_request`; texts but code hold no NUL."""
    return check_values(_decoded(body, into))


def check_values(struct: T) -> T:
    """The rules below the schema of `mayfly.sandbox_model`; InvalidRequestError naming the field."""
    for field, text in _texts(msgspec.to_builtins(struct), ""):
        _check_text(field, text)
    return struct


def _texts(value: Any, field: str) -> Iterator[tuple[str, str]]:
    """Every text of nested plain values with its place, keys of objects too."""
    if isinstance(value, str):
        yield field, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            if field:
                yield f"name in {field}", key
            yield from _texts(inner, f"{field}.{key}".lstrip(".")[:_SHOWN_CHARS])
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _texts(inner, f"{field}[{index}]")


def _check_text(field: str, text: str) -> None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise InvalidRequestError(
            f"{field} must be Unicode text; character {error.start} is half of a surrogate pair", field=field
        ) from None
    if field == "code":
        if size > CODE_MAX_BYTES:
            raise InvalidRequestError(
                f"code must be at most {CODE_MAX_BYTES // 1024} KiB of UTF-8; this has {size:,} bytes", field=field
            )
    elif "\0" in text:
        raise InvalidRequestError(f"{field} must not contain a NUL character", field=field)
    elif text.endswith("\n") and _NAME_FIELD.fullmatch(field):  # `$` in the patterns lets one newline pass
        raise InvalidRequestError(f"{field} must not end with a newline", field=field)


def _decoded(body: bytes, into: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=into)
    except msgspec.ValidationError as error:
        raise _explained(error, into, _loosely(body), InvalidRequestError) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequestError(f"the body must be a JSON object in UTF-8: {error}", field="body") from None


def make_request(values: Mapping[str, Any]) -> ExecutionRequest:
    """The request made of Python values, checked as the node checks it; InvalidRequestError naming the field."""
    return check_request(convert_values(dict(values), ExecutionRequest))


def convert_values(
    values: Any, into: type[T], *, error_class: type[InvalidRequestError] = InvalidRequestError, strict: bool = True
) -> T:
    """`msgspec.convert` whose complaint is `error_class`; `strict=False` takes numbers written as text."""
    try:
        return msgspec.convert(values, into, strict=strict)
    except msgspec.ValidationError as error:
        raise _explained(error, into, values, error_class) from None


def check_request(request: ExecutionRequest) -> ExecutionRequest:
    """The rules between fields and below the schema: bytes of the program, NUL, surrogates. Returns `request`."""
    texts = {"code": request.code, "stdin": request.stdin or "", "filename": request.filename or ""}
    texts |= {f"args[{index}]": arg for index, arg in enumerate(request.args)}
    texts |= {f"env.{name}": value for name, value in request.env.items()}
    for field, text in texts.items():
        try:
            size = len(text.encode())
        except UnicodeEncodeError as error:
            raise InvalidRequestError(
                f"{field} must be Unicode text; character {error.start} is half of a surrogate pair", field=field
            ) from None
        if field == "code" and size > CODE_MAX_BYTES:
            raise InvalidRequestError(
                f"code must be at most {CODE_MAX_BYTES // 1024} KiB of UTF-8; this program has {size:,} bytes",
                field=field,
            )
        if "\0" in text and field not in {"code", "stdin"}:
            raise InvalidRequestError(f"{field} must not contain a NUL character", field=field)
    for field, text in (("filename", request.filename or ""), ("policy", request.policy), *_names(request)):
        # `$` in the patterns lets one newline at the end pass.
        if text.endswith("\n"):
            raise InvalidRequestError(f"{field} must not end with a newline", field=field)
    if request.image is not None and request.image.endswith("\n"):
        raise InvalidRequestError("image must not end with a newline", field="image")
    if 0 < request.limits.scratch_mib < SCRATCH_LEAST_MIB:
        raise InvalidRequestError(
            f"limits.scratch_mib must be 0 or from {SCRATCH_LEAST_MIB} to 16,384, not {request.limits.scratch_mib}",
            field="limits.scratch_mib",
        )
    if request.stdin is not None and request.stdin_stream:
        raise InvalidRequestError("stdin must be absent when stdin_stream is true", field="stdin")
    return request


def suggestion(wrong: str, known: list[str]) -> str | None:
    """`did you mean …?` for the known name nearest to `wrong`, or None."""
    import difflib

    near = difflib.get_close_matches(wrong, known, n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else None


def _names(request: ExecutionRequest) -> list[tuple[str, str]]:
    return [("env", name) for name in request.env]


def _loosely(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _explained(
    error: msgspec.ValidationError, into: Any, values: Any, error_class: type[InvalidRequestError]
) -> InvalidRequestError:
    found = _LOCATED.match(str(error))
    what, path = (found["what"], found["path"] or "") if found else (str(error), "")
    if named := _FIELD_IN_WHAT.search(what):
        field = f"{path}.{named['name']}".lstrip(".")
        if named["kind"] != "unknown":
            return error_class(f"{field} is missing", field=field)
        known = _known_fields(into, path)
        hint = suggestion(named["name"], known) or f"known here: {', '.join(known)}"
        return error_class(f"{field} is not a known field", field=field, hint=hint)
    if found and found["key"]:
        return error_class(f"{path} has a name that is not allowed: {_plain(what)}", field=path)
    expected = _expectation(into, path) or _plain(what)
    got = _lookup(values, path)
    tail = "" if got is _ABSENT else f", not {_shown(got)}"
    return error_class(f"{path or 'the value'} must be {expected}{tail}", field=path or None)


def _plain(what: str) -> str:
    return what.removeprefix("Expected ").replace("`", "")


def _shown(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= _SHOWN_CHARS else f"{text[: _SHOWN_CHARS - 1]}…"


_ABSENT: Any = object()


def _lookup(values: Any, path: str) -> Any:
    """The offending value; `_ABSENT` where msgspec does not say which one (`env[...]`)."""
    for step in _steps(path):
        try:
            values = values[step]
        except (KeyError, IndexError, TypeError):
            return _ABSENT
    return values if isinstance(values, (str, int, float, bool, type(None))) else _ABSENT


def _steps(path: str) -> list[str | int]:
    """`limits.args[2]` as `["limits", "args", 2]`; `[...]`, msgspec's "one of them", stays a name."""
    return [int(step) if step.isdecimal() else step for step in _STEP.findall(path)]


def _type_at(into: Any, path: str) -> Any:
    """How msgspec describes the type at `path`, None when there is none."""
    kind: Any = msgspec.inspect.type_info(into)
    for step in _steps(path):
        if isinstance(kind, msgspec.inspect.UnionType):
            kind = next((option for option in kind.types if not isinstance(option, msgspec.inspect.NoneType)), None)
        if isinstance(kind, msgspec.inspect.StructType):
            kind = next((field.type for field in kind.fields if field.encode_name == step), None)
        elif isinstance(kind, msgspec.inspect.DictType):
            kind = kind.value_type
        else:
            kind = getattr(kind, "item_type", None)
    return kind


def _known_fields(into: Any, path: str) -> list[str]:
    kind = _type_at(into, path)
    return [field.encode_name for field in kind.fields] if isinstance(kind, msgspec.inspect.StructType) else []


def _expectation(into: Any, path: str) -> str | None:
    """What the type at `path` asks for, with both ends of its range; None for types that need no words."""
    kind = _type_at(into, path)
    nullable = ""
    if isinstance(kind, msgspec.inspect.UnionType):
        rest = [option for option in kind.types if not isinstance(option, msgspec.inspect.NoneType)]
        nullable = " or null" if len(rest) < len(kind.types) else ""
        kind = rest[0] if len(rest) == 1 else None
    words = _words(kind)
    return words + nullable if words else None


def _words(kind: Any) -> str | None:
    inspect = msgspec.inspect
    if isinstance(kind, inspect.LiteralType):
        return "one of " + ", ".join(sorted(str(value) for value in kind.values))
    if isinstance(kind, (inspect.IntType, inspect.FloatType)):
        noun = "a whole number" if isinstance(kind, inspect.IntType) else "a number"
        return f"{noun} from {kind.ge:,} to {kind.le:,}" if kind.ge is not None and kind.le is not None else noun
    if isinstance(kind, inspect.StrType):
        bounds = f" of at most {kind.max_length:,} characters" if kind.max_length is not None else ""
        return f"text{bounds}" + (f" matching {kind.pattern}" if kind.pattern else "")
    if isinstance(kind, (inspect.ListType, inspect.DictType)):
        noun = "a list" if isinstance(kind, inspect.ListType) else "an object"
        return noun + (f" of at most {kind.max_length} entries" if kind.max_length is not None else "")
    if isinstance(kind, inspect.BoolType):
        return "true or false"
    return "an object" if isinstance(kind, inspect.StructType) else None
