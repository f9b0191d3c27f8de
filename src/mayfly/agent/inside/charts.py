"""What a plot shows, read off its axes: lines, bars, points, pies, boxes."""

from __future__ import annotations

import functools

from mayfly.agent.inside.results import plain_value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

__all__ = ["chart_of", "record_boxes", "record_pies"]

_AXES_MAX = 32
_SERIES_MAX = 100
_POINTS_MAX = 5000
_OUTLIERS_MAX = 1000
_BOXES = "_mayfly_boxes"
_PIES = "_mayfly_pies"


def record_boxes(axes: Any) -> None:
    """Makes the class of axes remember the numbers of its box plots, which the drawing does not hold."""
    _recorded(axes, "bxp", _BOXES)


def record_pies(axes: Any) -> None:
    """Makes the class of axes remember the numbers of its pies, where the drawing holds angles only."""
    _recorded(axes, "pie", _PIES)


def _recorded(axes: Any, method: str, place: str) -> None:
    draw = getattr(axes, method)

    @functools.wraps(draw)
    def drawn(self: Any, first: Any, *args: Any, **named: Any) -> Any:
        result = draw(self, first, *args, **named)
        self.__dict__.setdefault(place, []).append((first, result))
        return result

    setattr(axes, method, drawn)


def chart_of(figure: Any) -> dict[str, Any] | None:
    """The figure's chart, or its charts under the kind `multiple`; None where nothing is recognised."""
    charts = []
    for axes in figure.axes[:_AXES_MAX]:
        try:
            chart = _chart(axes)
        except Exception:  # noqa: BLE001  a plot of some other kind is still a picture
            chart = None
        if chart is not None:
            charts.append(chart)
    if len(charts) < 2:
        return charts[0] if charts else None
    title = figure.get_suptitle() if hasattr(figure, "get_suptitle") else ""
    return {"kind": "multiple", "title": str(title)[:1000], "charts": charts}


def _chart(axes: Any) -> dict[str, Any] | None:
    for kind, read in _READERS:
        series, cut = read(axes)
        if series:
            return {
                "kind": kind,
                "title": str(axes.get_title())[:1000],
                "x_label": str(axes.get_xlabel())[:1000],
                "y_label": str(axes.get_ylabel())[:1000],
                "x_scale": str(axes.get_xscale()),
                "y_scale": str(axes.get_yscale()),
                "series": series,
                "truncated": cut,
            }
    return None


def _label(artist: Any, number: int) -> str:
    label = str(artist.get_label() or "")[:1000]
    return f"series {number}" if not label or label.startswith("_") else label


def _points(xs: Iterable[Any], ys: Iterable[Any]) -> tuple[list[list[Any]], bool]:
    points: list[list[Any]] = []
    for x, y in zip(xs, ys, strict=False):
        if len(points) == _POINTS_MAX:
            return points, True
        points.append([plain_value(x), plain_value(y)])
    return points, False


def _lines(axes: Any) -> tuple[list[dict[str, Any]], bool]:
    series, cut = [], len(axes.lines) > _SERIES_MAX
    for number, line in enumerate(axes.lines[:_SERIES_MAX], 1):
        points, more = _points(line.get_xdata(orig=True), line.get_ydata(orig=True))
        cut = cut or more
        if points:
            series.append({"label": _label(line, number), "points": points})
    return series, cut


def _scatters(axes: Any) -> tuple[list[dict[str, Any]], bool]:
    series, cut = [], False
    clouds = [each for each in axes.collections if type(each).__name__ == "PathCollection"]
    for number, cloud in enumerate(clouds[:_SERIES_MAX], 1):
        offsets = cloud.get_offsets()
        points, more = _points((pair[0] for pair in offsets), (pair[1] for pair in offsets))
        cut = cut or more
        if points:
            series.append({"label": _label(cloud, number), "points": points})
    return series, cut


def _names(axis: Any) -> list[tuple[float, str]]:
    """The places and texts of an axis' marks."""
    return [
        (float(place), label.get_text())
        for place, label in zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=False)
        if label.get_text()
    ]


def _bars(axes: Any) -> tuple[list[dict[str, Any]], bool]:
    series, cut = [], False
    containers = [each for each in axes.containers if type(each).__name__ == "BarContainer"]
    for number, container in enumerate(containers[:_SERIES_MAX], 1):
        lies = getattr(container, "orientation", "vertical") == "horizontal"
        names = _names(axes.yaxis if lies else axes.xaxis)
        points = []
        for bar in container.patches[:_POINTS_MAX]:
            at = bar.get_y() + bar.get_height() / 2 if lies else bar.get_x() + bar.get_width() / 2
            near = max(bar.get_height() if lies else bar.get_width(), 1e-9) / 2
            name: Any = next((text for place, text in names if abs(place - at) <= near), plain_value(at))
            points.append([name, plain_value(bar.get_width() if lies else bar.get_height())])
        cut = cut or len(container.patches) > _POINTS_MAX
        orientation = "horizontal" if lies else "vertical"
        series.append({"label": _label(container, number), "orientation": orientation, "points": points})
    return series, cut


def _boxes(axes: Any) -> tuple[list[dict[str, Any]], bool]:
    series: list[dict[str, Any]] = []
    for stats, _ in axes.__dict__.get(_BOXES, []):
        for number, box in enumerate(stats[: _SERIES_MAX - len(series)], 1):
            series.append(
                {
                    "label": str(box.get("label", number))[:1000],
                    "min": plain_value(box["whislo"]),
                    "q1": plain_value(box["q1"]),
                    "median": plain_value(box["med"]),
                    "q3": plain_value(box["q3"]),
                    "max": plain_value(box["whishi"]),
                    "outliers": [plain_value(each) for each in list(box.get("fliers", []))[:_OUTLIERS_MAX]],
                }
            )
    return series, len(series) >= _SERIES_MAX


def _pies(axes: Any) -> tuple[list[dict[str, Any]], bool]:
    series = []
    for number, (values, result) in enumerate(axes.__dict__.get(_PIES, [])[:_SERIES_MAX], 1):
        wedges = result.wedges if hasattr(result, "wedges") else result[0]
        slices = []
        for value, wedge in zip(list(values)[:_POINTS_MAX], wedges, strict=False):
            label = str(wedge.get_label() or "")
            fraction = (wedge.theta2 - wedge.theta1) / 360
            slices.append(
                {
                    "label": "" if label.startswith("_") else label[:1000],
                    "value": plain_value(value),
                    "fraction": round(float(fraction), 6),
                }
            )
        series.append({"label": f"series {number}", "slices": slices})
    return series, False


_READERS: tuple[tuple[str, Callable[[Any], tuple[list[dict[str, Any]], bool]]], ...] = (
    ("pie", _pies),
    ("box", _boxes),
    ("bar", _bars),
    ("scatter", _scatters),
    ("line", _lines),
)
