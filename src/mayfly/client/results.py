"""What `run_code` returns: results as notebooks know them, what was printed, and how it ended."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from mayfly.errors import InvalidRequestError
from mayfly.model import Usage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mayfly.model import ErrorInfo, Stage, Verdict
    from mayfly.sandbox_model import CodeError, CodeLanguage, CodeResult, CodeStatus, ContextId, Cut, RunId, SandboxId
    from mayfly.sandbox_model import CodeExecution as RunRecord

__all__ = ["CHART", "DATA", "CodeExecution", "Logs", "Result", "execution_of", "framed_html", "result_of"]

CHART = "application/vnd.mayfly.chart+json"
"""MIME type of what was read off a plot."""
DATA = "application/vnd.mayfly.data+json"
"""MIME type of a table's values."""

_TYPES = {
    "text": "text/plain",
    "html": "text/html",
    "markdown": "text/markdown",
    "svg": "image/svg+xml",
    "png": "image/png",
    "jpeg": "image/jpeg",
    "pdf": "application/pdf",
    "latex": "text/latex",
    "json": "application/json",
    "javascript": "application/javascript",
    "data": DATA,
    "chart": CHART,
}
_NAMES = {mime: name for name, mime in _TYPES.items()}
_BINARY = frozenset({"png", "jpeg", "pdf"})
_SHOWN = frozenset(
    {
        "text/plain",
        "text/latex",
        "image/png",
        "image/jpeg",
        "application/json",
        "application/vnd.plotly.v1+json",
        "application/vnd.vegalite.v4+json",
        "application/vnd.vegalite.v5+json",
        "application/vnd.vegalite.v6+json",
    }
)
"""What notebooks show as it is: nothing in it is run."""
_FRAME_MAX_PX = 520
_ENDINGS = {"txt": "text", "htm": "html", "md": "markdown", "jpg": "jpeg", "tex": "latex", "js": "javascript"}


@dataclass(frozen=True, slots=True, repr=False)
class Result:
    """One thing that was displayed, or the value of the last expression (`is_main_result`).

    The same thing in one or more representations; an attribute is None where there is none of its kind. `png`,
    `jpeg` and `pdf` are base64, as in notebooks; `content` and `save` decode them. In a notebook a result shows itself,
    HTML in a frame that reaches nothing of the notebook, and no JavaScript of its own.
    """

    bundle: Mapping[str, Any]
    """MIME type → text, base64 of what is no text, or a value where the type is JSON."""
    is_main_result: bool = False
    metadata: Mapping[str, Any] = field(default_factory=dict)
    truncated: tuple[Cut, ...] = ()
    """Representations that were left out for their size: `mime` and `bytes` of each."""

    _missing: ClassVar[object] = object()

    def formats(self) -> list[str]:
        """Names of the representations that are there, as attributes of this class, then other MIME types."""
        named = [name for name, mime in _TYPES.items() if mime in self.bundle]
        return named + sorted(self.extra)

    @property
    def text(self) -> str | None:
        """`text/plain`: for Python the value's `repr`."""
        return self._text("text")

    @property
    def html(self) -> str | None:
        """`text/html`; for a DataFrame its table."""
        return self._text("html")

    @property
    def markdown(self) -> str | None:
        """`text/markdown`."""
        return self._text("markdown")

    @property
    def svg(self) -> str | None:
        """`image/svg+xml`."""
        return self._text("svg")

    @property
    def png(self) -> str | None:
        """`image/png` in base64; for a Matplotlib figure its picture."""
        return self._text("png")

    @property
    def jpeg(self) -> str | None:
        """`image/jpeg` in base64."""
        return self._text("jpeg")

    @property
    def pdf(self) -> str | None:
        """`application/pdf` in base64."""
        return self._text("pdf")

    @property
    def latex(self) -> str | None:
        """`text/latex`."""
        return self._text("latex")

    @property
    def json(self) -> Any:
        """`application/json`, decoded."""
        return self.bundle.get(_TYPES["json"])

    @property
    def javascript(self) -> str | None:
        """`application/javascript`."""
        return self._text("javascript")

    @property
    def data(self) -> Any:
        """A DataFrame's `columns`, `index`, `rows` (1,000 at most), whole `shape`, and whether it is `truncated`."""
        return self.bundle.get(DATA)

    @property
    def chart(self) -> dict[str, Any] | None:
        """What was read off a plot; None where it is no Matplotlib figure.

        `kind` is `line`, `bar`, `scatter`, `pie`, `box`, `unknown`, or `multiple` with a list of `charts`; `title`,
        `x_label`, `y_label`, `x_scale`, `y_scale`; `series`, each with a `label` and `points`, `slices` or quartiles.
        """
        found = self.bundle.get(CHART)
        return found if isinstance(found, dict) else None

    @property
    def extra(self) -> dict[str, Any]:
        """Representations of other MIME types."""
        return {mime: value for mime, value in self.bundle.items() if mime not in _NAMES}

    def content(self, name: str) -> bytes:
        """One representation as the bytes of a file; InvalidRequestError when there is none, or it is broken."""
        value = self.bundle.get(_TYPES.get(name, name), self._missing)
        if value is self._missing:
            raise InvalidRequestError(
                f"the result has no {name!r}", field="name", hint=f"it has: {', '.join(self.formats()) or 'nothing'}"
            )
        if not isinstance(value, str):
            return msgspec.json.encode(value)
        if name not in _BINARY:
            return value.encode("utf-8", "replace")
        try:
            return base64.b64decode(value, validate=False)
        except ValueError:
            raise InvalidRequestError(f"the result's {name!r} is not base64", field="name") from None

    def save(self, path: str | Path, *, format: str | None = None) -> Path:  # noqa: A002 - as Matplotlib says it
        """Write one representation to a file here, chosen by the file's ending or `format`. Returns the path."""
        target = Path(path)
        ending = target.suffix.removeprefix(".").lower()
        target.write_bytes(self.content(format or _ENDINGS.get(ending, ending)))
        return target

    def _text(self, name: str) -> str | None:
        value = self.bundle.get(_TYPES[name])
        return value if isinstance(value, str) else None

    def __repr__(self) -> str:
        main = ", main" if self.is_main_result else ""
        return f"Result({', '.join(self.formats())}{main})"

    def __str__(self) -> str:
        return self.text if self.text is not None else repr(self)

    # What notebooks ask for. A sandbox's output is not trusted: nothing of it may run in the notebook's own page.

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        """For IPython: all that is safe to show, HTML in a frame of its own."""
        shown = {mime: value for mime, value in self.bundle.items() if mime in _SHOWN}
        if framed := self._repr_html_():
            shown["text/html"] = framed
        kept = {mime: value for mime, value in shown.items() if include is None or mime in include}
        return {mime: value for mime, value in kept.items() if not exclude or mime not in exclude}

    def _repr_html_(self) -> str | None:
        return framed_html(self.html) if self.html is not None else _picture(self.svg)

    def _repr_png_(self) -> str | None:
        return self.png

    def _repr_jpeg_(self) -> str | None:
        return self.jpeg

    def _repr_latex_(self) -> str | None:
        return self.latex

    def _repr_json_(self) -> Any:
        return self.json


def framed_html(html: str) -> str:
    """`html` in a frame that may run scripts, and may reach nothing of the page around it."""
    rows = html.count("<tr")
    height = min(_FRAME_MAX_PX, 60 + 26 * rows) if rows else _FRAME_MAX_PX
    return (
        f'<iframe sandbox="allow-scripts" referrerpolicy="no-referrer" srcdoc="{escape(html)}" '
        f'style="width:100%;height:{height}px;border:0"></iframe>'
    )


def _picture(svg: str | None) -> str | None:
    """As an image, in which scripts do not run."""
    if svg is None:
        return None
    return f'<img src="data:image/svg+xml;base64,{base64.b64encode(svg.encode("utf-8", "replace")).decode()}">'


@dataclass(frozen=True, slots=True)
class Logs:
    """What was printed, as text; bytes that are no UTF-8 are replaced."""

    stdout: str = ""
    stderr: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeExecution:
    """One `run_code` and its result. What the code did wrong is in `status` and `error`, never raised.

    `status`: `succeeded`; `failed` (it raised, see `error`); `timeout` and `interrupted`; `context_lost` (the
    interpreter ended); `denied` (refused by the scan, see `scan`; nothing was run); `error` (Mayfly failed, see
    `failure`). `state_lost` says that the context's variables are gone and it begins anew.
    """

    id: RunId
    sandbox_id: SandboxId
    context: ContextId
    language: CodeLanguage
    status: CodeStatus
    results: tuple[Result, ...] = ()
    logs: Logs = Logs()
    error: CodeError | None = None
    """What the code raised: `name`, `value`, `traceback`."""
    execution_count: int | None = None
    state_lost: bool = False
    truncated: bool = False
    """Output or results beyond their limits were dropped."""
    failure: ErrorInfo | None = None
    scan: Verdict | None = None
    stages: tuple[Stage, ...] = ()
    usage: Usage = field(default_factory=Usage)
    created_at: str = ""

    @property
    def ok(self) -> bool:
        """True for status `succeeded`."""
        return self.status == "succeeded"

    @property
    def text(self) -> str | None:
        """The main result's text: what a notebook would print below the cell."""
        return next((result.text for result in self.results if result.is_main_result), None)

    @property
    def main_result(self) -> Result | None:
        """The value of the last expression, if it had one."""
        return next((result for result in self.results if result.is_main_result), None)

    def __repr__(self) -> str:
        shown = [f"status={self.status!r}"]
        if self.text is not None:
            shown.append(f"text={self.text[:60]!r}")
        if self.error is not None:
            shown.append(f"error={self.error.name!r}")
        if others := len(self.results):
            shown.append(f"results={others}")
        return f"CodeExecution({', '.join(shown)})"


def result_of(shape: CodeResult) -> Result:
    """A result as it came over the wire."""
    return Result(shape.data, shape.is_main_result, shape.metadata, shape.truncated)


def execution_of(record: RunRecord) -> CodeExecution:
    """A run as it came over the wire."""
    return CodeExecution(
        id=record.id,
        sandbox_id=record.sandbox_id,
        context=record.context,
        language=record.language,
        status=record.status,
        results=tuple(result_of(shape) for shape in record.results),
        logs=Logs(record.stdout, record.stderr),
        error=record.error,
        execution_count=record.execution_count,
        state_lost=record.state_lost,
        truncated=record.truncated,
        failure=record.failure,
        scan=record.scan,
        stages=record.stages,
        usage=record.usage,
        created_at=record.created_at,
    )
