"""What the code shows: put together, kept within its limits, and sent."""

from __future__ import annotations

import binascii
import json
import math

from mayfly.agent.inside.wire import ERROR, RESULT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from traceback import TracebackException
    from typing import Any

    from mayfly.agent.inside.wire import Wire

__all__ = ["TABLE_MIME", "Reporter", "bundle_of", "plain_value", "table_of"]

TABLE_MIME = "application/vnd.mayfly.data+json"
_ITEMS_MAX = 1000
_ROWS_MAX = 1000
_CELLS_MAX = 50_000
_CELL_MAX_CHARS = 1000
_ERROR_MAX_CHARS = 100_000
_METHODS = {
    "text/html": "_repr_html_",
    "text/markdown": "_repr_markdown_",
    "image/svg+xml": "_repr_svg_",
    "image/png": "_repr_png_",
    "image/jpeg": "_repr_jpeg_",
    "application/pdf": "_repr_pdf_",
    "text/latex": "_repr_latex_",
    "application/json": "_repr_json_",
    "application/javascript": "_repr_javascript_",
}


class Reporter:
    """Sends results and errors of the present run."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.truncated = False
        self.failed = False
        """Whether an error was reported."""
        self._asked_formats = ["png"]
        self.chosen_formats: list[str] | None = None
        """What the program has chosen instead of what the run asks for."""
        self._item_bytes = self._left_bytes = self._left_items = 0
        self._error: dict[str, str] | None = None
        self._error_is_minor = False
        self.special: list[Callable[[object], dict[str, Any] | None]] = []
        """Ask these for a bundle of an object first."""

    def begin(self, order: Mapping[str, Any]) -> None:
        """Takes the limits of a new run."""
        self.truncated = self.failed = False
        self._error = None
        self._asked_formats = list(order["figure_formats"])
        self._item_bytes = order["item_bytes"]
        self._left_bytes = order["result_bytes"]
        self._left_items = _ITEMS_MAX

    @property
    def figure_formats(self) -> list[str]:
        """How figures are drawn."""
        return self.chosen_formats or self._asked_formats

    @property
    def full(self) -> bool:
        """Whether nothing more will be sent, so that nobody need make it."""
        return self._left_items <= 0 or self._left_bytes <= 0

    def show(self, thing: object, *, is_main: bool = False) -> None:
        """An object in all its representations."""
        if self.full:
            self.truncated = True
            return
        self.send(bundle_of(thing, self.special), is_main=is_main)

    def send(
        self, bundle: Mapping[str, Any], metadata: Mapping[str, Any] | None = None, *, is_main: bool = False
    ) -> None:
        """A MIME bundle; what is too long of it is left out, and named."""
        if self.full:
            self.truncated = True
            return
        data: dict[str, Any] = {}
        cut: list[dict[str, object]] = []
        for mime, value in bundle.items():
            fitted, size = self._fitted(str(mime)[:128], value)
            if fitted is not None:
                data[str(mime)[:128]] = fitted
            if fitted is None or size > self._item_bytes:
                cut.append({"mime": str(mime)[:128], "bytes": size})
        shape = {"data": data, "metadata": _plain(dict(metadata or {})), "is_main_result": is_main, "truncated": cut}
        payload = _encoded(shape)
        self.truncated = self.truncated or bool(cut)
        if len(payload) > self._left_bytes:  # the marker alone always goes out, so that the loss is seen
            sizes = [{"mime": mime, "bytes": len(_encoded(value))} for mime, value in data.items()]
            payload = _encoded({"data": {}, "metadata": {}, "is_main_result": is_main, "truncated": [*cut, *sizes]})
            self.truncated = True
            self._left_bytes = 0
        self._left_bytes -= len(payload)
        self._left_items -= 1
        self._wire.send(RESULT, payload, wait=True)

    def _fitted(self, mime: str, value: Any) -> tuple[Any, int]:
        """The value as it travels, or None where it does not; and its size."""
        if isinstance(value, (bytes, bytearray)):
            size = (len(value) + 2) // 3 * 4
            return (binascii.b2a_base64(value, newline=False).decode() if size <= self._item_bytes else None), size
        if mime.endswith("json") and not isinstance(value, str):
            value = _plain(value)
            size = len(_encoded(value))
            return (value if size <= self._item_bytes else None), size
        text = value if isinstance(value, str) else str(value)
        size = len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
        if size <= self._item_bytes:
            return text, size
        if mime == "text/plain":
            return text.encode("utf-8", "replace")[: self._item_bytes].decode("utf-8", "ignore"), size
        return None, size

    def exception(self, error: BaseException) -> None:
        """What was raised, with the traceback as far as it is the program's own."""
        import traceback

        try:
            told = traceback.TracebackException.from_exception(error)
            _forget_ourselves(told)
            lines = list(told.format())
        except Exception:  # noqa: BLE001  an exception may fail to show itself
            lines = [f"{type(error).__name__}: <it cannot be shown>\n"]
        self.error(type(error).__name__, _safe(str, error), "".join(lines))

    def error(self, name: str, value: str, trace: str, *, minor: bool = False) -> None:
        """An error's name, its text and its traceback. The first one counts, unless it is `minor`: did not end it."""
        if self._error is None or self._error_is_minor:
            shape = {"name": name[:200], "value": value[:_ERROR_MAX_CHARS], "traceback": _middle_cut(trace)}
            self._error, self._error_is_minor = shape, minor
        self.failed = True

    def end(self) -> None:
        """Sends the error of the run, if there was one."""
        if self._error is not None:
            self._wire.send(ERROR, _encoded(self._error), wait=True)
            self._error = None


def _forget_ourselves(told: TracebackException | None, depth: int = 0) -> None:
    """Takes the frames of this package out, also of what led to it."""
    if told is not None and depth < 50:
        told.stack[:] = [frame for frame in told.stack if "/mayfly/agent/inside/" not in frame.filename]
        _forget_ourselves(told.__cause__, depth + 1)
        _forget_ourselves(told.__context__, depth + 1)


def bundle_of(thing: object, special: list[Callable[[object], dict[str, Any] | None]]) -> dict[str, Any]:
    """All representations that the object offers, by MIME type; `text/plain` always."""
    for ask in special:
        bundle = ask(thing)
        if bundle is not None:
            return bundle
    bundle = {"text/plain": _safe(repr, thing)}
    if not isinstance(thing, type):
        made = _call(thing, "_repr_mimebundle_")
        if isinstance(made, tuple):
            made = made[0]
        if isinstance(made, dict):
            bundle.update(made)
        for mime, method in _METHODS.items():
            value = _call(thing, method) if mime not in bundle else None
            if value is not None:
                bundle[mime] = value[0] if isinstance(value, tuple) else value
    table = table_of(thing)
    if table is not None:
        bundle[TABLE_MIME] = table
    return bundle


def _call(thing: object, method: str) -> Any:
    try:
        function = getattr(thing, method, None)
        return function() if callable(function) else None
    except Exception:  # noqa: BLE001  one representation that fails costs itself only
        return None


def _safe(show: Callable[[object], str], thing: object) -> str:
    try:
        return show(thing)
    except Exception as error:  # noqa: BLE001  `__repr__` may raise anything
        return f"<{type(thing).__name__} whose {show.__name__} raises {type(error).__name__}>"


def table_of(thing: object) -> dict[str, Any] | None:
    """The first rows of a pandas table as plain values; None for anything else."""
    kind = type(thing)
    if kind.__module__.split(".")[0] != "pandas" or kind.__name__ not in {"DataFrame", "Series"}:
        return None
    try:
        frame: Any = thing.to_frame() if kind.__name__ == "Series" else thing  # type: ignore[attr-defined]
        height, width = frame.shape
        columns = min(width, _CELLS_MAX)
        rows = min(height, _ROWS_MAX, _CELLS_MAX // max(columns, 1))
        part = frame.iloc[:rows, :columns]
        return {
            "columns": [_safe(str, name)[:_CELL_MAX_CHARS] for name in part.columns],
            "index": [plain_value(value) for value in part.index],
            "rows": [[plain_value(value) for value in row] for row in part.itertuples(index=False, name=None)],
            "shape": [int(height), int(width)],
            "truncated": rows < height or columns < width,
        }
    except Exception:  # noqa: BLE001  a table that cannot be read is shown as text all the same
        return None


def plain_value(value: Any) -> object:
    """A scalar as JSON has it: what is no number, text or truth becomes text, what is no value None."""
    if hasattr(value, "item") and type(value).__module__ == "numpy":
        value = value.item()
    if value is None or isinstance(value, (bool, int, float)):
        return _number(value)
    if isinstance(value, str):
        return value[:_CELL_MAX_CHARS]
    if type(value).__name__ in {"NAType", "NaTType"}:
        return None
    if hasattr(value, "isoformat"):
        return _safe(lambda moment: moment.isoformat(), value)[:_CELL_MAX_CHARS]  # type: ignore[attr-defined]
    return _safe(str, value)[:_CELL_MAX_CHARS]


def _number(value: float | None) -> object:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return int(value) if -(2**53) <= value <= 2**53 else str(value)


def _plain(value: Any, depth: int = 0) -> Any:
    """Only what JSON has; too deep is left out."""
    if isinstance(value, str):
        return str(value)
    if value is None or isinstance(value, (bool, int, float)):
        return _number(value)
    if depth > 60:
        return None
    if isinstance(value, dict):
        return {str(key): _plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, depth + 1) for item in value]
    return _plain(value.tolist(), depth + 1) if hasattr(value, "tolist") else _safe(str, value)


def _encoded(shape: object) -> bytes:
    return json.dumps(shape, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _middle_cut(text: str) -> str:
    if len(text) <= _ERROR_MAX_CHARS:
        return text
    half = _ERROR_MAX_CHARS // 2
    return f"{text[:half]}\n... {len(text) - 2 * half} characters left out ...\n{text[-half:]}"
