"""Matplotlib's figures: each is shown once, when `show` or `display` is called or else at the end of the cell.

Plotly's are shown when they ask for it. Altair's charts come with their specification.

Matplotlib is loaded when the program loads it, so what is to be changed in it is changed right after.
"""

from __future__ import annotations

import importlib.machinery
import io
import json
import os
import sys
import weakref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

    from mayfly.agent.inside.results import Reporter

__all__ = ["prepare", "show_all"]

_BACKEND_MODULE = "mayfly_figures"
_BACKEND = f"module://{_BACKEND_MODULE}"
CHART_MIME = "application/vnd.mayfly.chart+json"
_VEGALITE = "application/vnd.vegalite.v"
_MIMES = {"png": "image/png", "svg": "image/svg+xml", "jpeg": "image/jpeg", "pdf": "application/pdf"}


class _Shown:
    reporter: Reporter | None = None
    changed: set[str] = set()  # noqa: RUF012  the same
    """Modules that have been changed already."""
    figures: weakref.WeakSet[Any] = weakref.WeakSet()  # noqa: RUF012  one process, one set


class _Loader:
    """Loads as `loader` does, and then changes the module."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        if getattr(module, "__loader__", None) is self:
            module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        _change(module.__name__, module)


class _BackendLoader:
    """Makes Matplotlib's backend of a sandbox: it draws as Agg does, and `show` sends the figures."""

    def create_module(self, _: ModuleSpec) -> None:
        """An ordinary one."""

    def exec_module(self, module: Any) -> None:
        module.FigureCanvas = importlib.import_module("matplotlib.backends.backend_agg").FigureCanvasAgg
        module.FigureManager = importlib.import_module("matplotlib.backend_bases").FigureManagerBase
        module.show = lambda *_, **__: show_all()


class _Finder:
    """Finds the backend, and what the other finders find for the modules that something is to be done to."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name == _BACKEND_MODULE:
            loader: Any = _BackendLoader()
            return importlib.machinery.ModuleSpec(name, loader)
        if name not in _AFTER:
            return None
        for finder in sys.meta_path:
            if finder is not self and hasattr(finder, "find_spec"):
                spec: Any = finder.find_spec(name, path, target)
                if spec is not None:
                    spec.loader = _Loader(spec.loader)
                    return spec  # type: ignore[no-any-return]
        return None


def _set_backend(matplotlib: Any) -> None:
    """Ours, unless the environment names one; and where programs ask for Agg, which draws the same."""
    if not os.environ.get("MPLBACKEND"):
        matplotlib.rcParams["backend"] = _BACKEND
    use = matplotlib.use

    def use_ours(backend: str, *, force: bool = True) -> None:
        use(
            _BACKEND if str(backend).lower() in {"agg", "inline", "module://matplotlib_inline"} else backend,
            force=force,
        )

    use_ours.__doc__ = use.__doc__
    matplotlib.use = use_ours


def _record(axes: Any) -> None:
    from mayfly.agent.inside.charts import record_boxes, record_pies

    record_boxes(axes.Axes)
    record_pies(axes.Axes)


def _show_plotly(plotly_io: Any) -> None:
    """`figure.show()` shows here, where no browser can be opened."""

    def show(figure: object, *_: object, **__: object) -> None:
        if _Shown.reporter is not None:
            _Shown.reporter.show(figure)

    plotly_io.show = show


_AFTER: dict[str, Callable[[Any], None]] = {
    "matplotlib": _set_backend,
    "matplotlib.axes._axes": _record,
    "plotly.io": _show_plotly,
}


def prepare(reporter: Reporter) -> None:
    """To be called once, before any code of the program."""
    _Shown.reporter = reporter
    reporter.special += [_bundle_of_figure, _bundle_of_plotly, _bundle_of_altair]
    sys.meta_path.insert(0, _Finder())
    for finder in list(sys.meta_path):
        held: Any = getattr(finder, "modules", None)  # imported ahead, and put aside until they are asked for
        for name in _AFTER if isinstance(held, dict) else ():
            if name in held:
                importlib.import_module(name)
    _change_loaded()
    pyplot: Any = sys.modules.get("matplotlib.pyplot")
    if pyplot is not None and not os.environ.get("MPLBACKEND"):
        pyplot.switch_backend(_BACKEND)


def _change_loaded() -> None:
    """Changes what has come in by another way than the finder."""
    for name in _AFTER:
        module = sys.modules.get(name)
        if module is not None and not getattr(module.__spec__, "_initializing", False):
            _change(name, module)


def _change(name: str, module: Any) -> None:
    if name not in _Shown.changed:
        _Shown.changed.add(name)
        _AFTER[name](module)


def _bundle_of_figure(thing: object) -> dict[str, Any] | None:
    module: Any = sys.modules.get("matplotlib.figure")
    if module is None or not isinstance(thing, module.Figure):
        return None
    from mayfly.agent.inside.charts import chart_of

    reporter = _Shown.reporter
    _Shown.figures.add(thing)
    bundle: dict[str, Any] = {"text/plain": repr(thing)}
    for name in reporter.figure_formats if reporter is not None else ["png"]:
        buffer = io.BytesIO()
        thing.savefig(buffer, format=name, bbox_inches="tight")
        content = buffer.getvalue()
        bundle[_MIMES[name]] = content.decode("utf-8", "replace") if name == "svg" else content
    chart = chart_of(thing)
    if chart is not None:
        bundle[CHART_MIME] = chart
    return bundle


def _bundle_of_plotly(thing: object) -> dict[str, Any] | None:
    """Of a Plotly figure: itself, and a page that loads Plotly from its own address."""
    module: Any = sys.modules.get("plotly.basedatatypes")
    if module is None or not isinstance(thing, module.BaseFigure):
        return None
    figure: Any = thing
    return {
        "text/plain": f"<{type(thing).__name__} of Plotly>",
        "application/vnd.plotly.v1+json": json.loads(figure.to_json()),
        "text/html": figure.to_html(include_plotlyjs="cdn", full_html=False),
    }


def _bundle_of_altair(thing: object) -> dict[str, Any] | None:
    """Of an Altair chart: what its renderer makes, by default a page, and its specification, which no renderer adds."""
    module: Any = sys.modules.get("altair")
    kind = getattr(module, "TopLevelMixin", None)
    if kind is None or not isinstance(thing, kind):
        return None
    chart: Any = thing
    made = chart._repr_mimebundle_()
    bundle = {"text/plain": repr(thing), **(made[0] if isinstance(made, tuple) else made or {})}
    if any(mime.startswith(_VEGALITE) for mime in bundle):
        return bundle
    try:
        specification = chart.to_dict()
    except Exception:  # noqa: BLE001  what is wrong with it was said above
        return bundle
    _, _, version = str(specification.get("$schema", "")).rpartition("/v")
    bundle[f"{_VEGALITE}{version.partition('.')[0] or '5'}+json"] = specification
    return bundle


def show_all() -> None:
    """Shows what is open and has not been shown, in order, and closes all of it."""
    _change_loaded()
    helpers: Any = sys.modules.get("matplotlib._pylab_helpers")
    pyplot: Any = sys.modules.get("matplotlib.pyplot")
    if helpers is None or pyplot is None or _Shown.reporter is None:
        return
    managers = helpers.Gcf.get_all_fig_managers()
    if not managers:
        return
    try:
        for manager in managers:
            figure = manager.canvas.figure
            if figure not in _Shown.figures:
                _Shown.reporter.show(figure)
    finally:
        pyplot.close("all")
