"""What code shows beside its output: values, tables, figures, charts, and their limits."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest

from mayfly.guest.shapes import CHART_MIME, TABLE_MIME, CodeOutput
from mayfly.sandbox_model import CodeResult
from mayfly.testing.guests import libraries_path, open_guest, run_cell

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mayfly.guest.sandbox import Guest

pytestmark = pytest.mark.anyio

_PLOT = "import matplotlib.pyplot as plt\n"


@pytest.fixture
async def plain() -> AsyncIterator[Guest]:
    """Without any library."""
    async with open_guest() as guest:
        await guest.create_context("default", lang="python", env={"PYTHONPATH": ""})
        yield guest


@pytest.fixture(scope="module")
async def guest() -> AsyncIterator[Guest]:
    """With IPython and the data libraries of the tests' environment."""
    path = libraries_path()
    if path is None:
        pytest.skip("IPython is not installed for the system's Python")
    async with open_guest() as guest:
        await guest.create_context("default", lang="python", env={"PYTHONPATH": path})
        cell = await run_cell(guest, "import matplotlib, pandas, IPython\nget_ipython() is not None")
        if cell.text != "True":
            pytest.skip("the system's Python cannot load the data libraries of the tests' environment")
        yield guest


def _pictures(events: tuple[Any, ...]) -> list[bytes]:
    return [
        base64.b64decode(event.data["image/png"])
        for event in events
        if isinstance(event, CodeResult) and "image/png" in event.data
    ]


async def test_a_table_is_html_text_and_data(guest: Guest) -> None:
    cell = await run_cell(
        guest,
        "import pandas as pd\n"
        "pd.DataFrame({'n': [1, 2.5], 's': ['a', None], 't': pd.to_datetime(['2024-05-01', None])}, index=['x', 'y'])",
    )
    (result,) = cell.results
    assert result.is_main_result
    assert "<table" in result.data["text/html"]
    assert result.data[TABLE_MIME] == {
        "columns": ["n", "s", "t"],
        "index": ["x", "y"],
        "rows": [[1.0, "a", "2024-05-01T00:00:00"], [2.5, None, None]],
        "shape": [2, 3],
        "truncated": False,
    }


async def test_a_long_table_is_cut_and_says_so(guest: Guest) -> None:
    cell = await run_cell(guest, "import pandas as pd; pd.DataFrame({'a': range(5000), 'b': 0})")
    table = cell.results[0].data[TABLE_MIME]
    assert (len(table["rows"]), table["shape"], table["truncated"]) == (1000, [5000, 2], True)


async def test_figures_come_once_and_in_order_with_and_without_show(guest: Guest) -> None:
    cell = await run_cell(
        guest,
        _PLOT
        + "plt.plot([1], label='first'); plt.show()\nprint('between')\nplt.figure(); plt.plot([2], label='second')\n"
        "fig, ax = plt.subplots(); ax.plot([3], label='third'); None",
    )
    told: list[str] = []
    for event in cell.events:
        if isinstance(event, CodeOutput):
            told += event.data.decode().split()
        elif isinstance(event, CodeResult):
            told.append(event.data[CHART_MIME]["series"][0]["label"])
    assert told == ["first", "between", "second", "third"]
    assert all(picture.startswith(b"\x89PNG") for picture in _pictures(cell.events))
    assert (await run_cell(guest, "1")).text == "1"
    assert not _pictures((await run_cell(guest, "None")).events)


async def test_a_figure_that_is_also_the_value_comes_once(guest: Guest) -> None:
    for code in ("fig = plt.figure(); plt.plot([1]); fig", "fig = plt.figure(); plt.plot([1]); display(fig)"):
        assert len(_pictures((await run_cell(guest, _PLOT + code)).events)) == 1
    closed = await run_cell(guest, _PLOT + "plt.plot([1]); plt.savefig('kept.png'); plt.close()")
    assert _pictures(closed.events) == []
    assert (await guest.stat("kept.png")).size > 1000


async def test_what_was_written_for_notebooks_or_for_agg_works(guest: Guest) -> None:
    notebook = "%matplotlib inline\n" + _PLOT + "plt.plot([1]); plt.show()"
    agg = "import matplotlib\nmatplotlib.use('Agg')\n" + _PLOT + "plt.plot([1])\nplt.show()"
    for code in (notebook, agg):
        cell = await run_cell(guest, code)
        assert len(_pictures(cell.events)) == 1
        assert cell.printed("stderr") == ""


async def test_a_figure_in_other_formats(guest: Guest) -> None:
    cell = await run_cell(guest, _PLOT + "plt.plot([1]); None", figure_formats=("svg", "pdf"))
    data = cell.results[0].data
    assert data["image/svg+xml"].lstrip().startswith("<?xml")
    assert base64.b64decode(data["application/pdf"]).startswith(b"%PDF")
    assert "image/png" not in data


async def test_a_notebooks_wish_for_a_format_is_heard(guest: Guest) -> None:
    for wish, mime in (("figure_formats = ['svg']", "image/svg+xml"), ("figure_format = 'retina'", "image/png")):
        cell = await run_cell(guest, f"%config InlineBackend.{wish}\n{_PLOT}plt.plot([1]); None")
        assert cell.end.status == "ok"
        assert mime in cell.results[0].data
    await run_cell(guest, "%config InlineBackend.figure_formats = None")
    assert "image/png" in (await run_cell(guest, _PLOT + "plt.plot([1]); None")).results[0].data


@pytest.mark.parametrize(
    ("code", "kind", "series"),
    [
        ("plt.plot([1, 2], [3, 4], label='l')", "line", [{"label": "l", "points": [[1, 3], [2, 4]]}]),
        ("plt.scatter([1, 2], [3, 4], label='s')", "scatter", [{"label": "s", "points": [[1.0, 3.0], [2.0, 4.0]]}]),
        (
            "plt.bar(['a', 'b'], [3, 4], label='b')",
            "bar",
            [{"label": "b", "orientation": "vertical", "points": [["a", 3], ["b", 4]]}],
        ),
        (
            "plt.pie([1, 3], labels=['a', 'b'])",
            "pie",
            [
                {
                    "label": "series 1",
                    "slices": [
                        {"label": "a", "value": 1, "fraction": 0.25},
                        {"label": "b", "value": 3, "fraction": 0.75},
                    ],
                }
            ],
        ),
        (
            "plt.boxplot([[1, 2, 3, 4, 100]])",
            "box",
            [{"label": "1", "min": 1, "q1": 2.0, "median": 3.0, "q3": 4.0, "max": 4, "outliers": [100]}],
        ),
    ],
    ids=["line", "scatter", "bar", "pie", "box"],
)
async def test_a_chart_is_read_off_its_plot(guest: Guest, code: str, kind: str, series: list[Any]) -> None:
    cell = await run_cell(guest, f"{_PLOT}{code}\nplt.title('T'); plt.xlabel('X'); plt.ylabel('Y'); None")
    chart = cell.results[0].data[CHART_MIME]
    assert (chart["kind"], chart["title"], chart["x_label"], chart["y_label"]) == (kind, "T", "X", "Y")
    assert chart["series"] == series


async def test_two_plots_in_one_figure_are_two_charts(guest: Guest) -> None:
    cell = await run_cell(guest, _PLOT + "f, (a, b) = plt.subplots(2); a.plot([1]); b.bar(['x'], [1]); f")
    chart = cell.results[0].data[CHART_MIME]
    assert (chart["kind"], [each["kind"] for each in chart["charts"]]) == ("multiple", ["line", "bar"])


async def test_libraries_show_themselves_by_their_own_means(guest: Guest) -> None:
    cell = await run_cell(guest, "from PIL import Image; Image.new('RGB', (3, 3))")
    assert _pictures(cell.events)[0].startswith(b"\x89PNG")
    own = (
        "class Spec:\n    def _repr_mimebundle_(self, include=None, exclude=None):\n"
        "        return {'application/vnd.vega.v5+json': {'mark': 'bar'}, 'text/plain': 'spec'}\nSpec()"
    )
    assert (await run_cell(guest, own)).results[0].data["application/vnd.vega.v5+json"] == {"mark": "bar"}


async def _or_skip(guest: Guest, code: str, library: str) -> Any:
    """Runs the code, which shows one thing; skips where the library is not there."""
    if (await run_cell(guest, f"import {library}")).end.status != "ok":
        pytest.skip(f"{library} in the tests' environment")
    cell = await run_cell(guest, code, timeout_s=60)
    assert (cell.end.status, cell.error, cell.printed("stderr")) == ("ok", None, "")
    return cell


async def test_plotly_gives_the_figure_and_a_page(guest: Guest) -> None:
    draw = "import plotly.express as px\nfigure = px.bar(x=['a', 'b'], y=[1, 2], title='T')\n"
    for show, is_main in (("figure", True), ("figure.show()", False)):
        (result,) = (await _or_skip(guest, draw + show, "plotly")).results
        figure = result.data["application/vnd.plotly.v1+json"]
        assert (figure["data"][0]["type"], figure["data"][0]["x"]) == ("bar", ["a", "b"])
        assert figure["layout"]["title"]["text"] == "T"
        assert "Plotly.newPlot" in result.data["text/html"]
        assert len(result.data["text/html"]) < 100_000, "the library is not in it"
        assert result.is_main_result is is_main


async def test_altair_gives_the_specification_and_a_page(guest: Guest) -> None:
    draw = (
        "import altair as alt, pandas as pd\nframe = pd.DataFrame({'shop': ['a', 'b'], 'sold': [1, 2]})\n"
        "bars = alt.Chart(frame).mark_bar().encode(x='shop', y='sold')\n"
    )
    for show, is_main in (("bars", True), ("display(bars)", False), ("bars + bars.mark_line()", True)):
        (result,) = (await _or_skip(guest, draw + show, "altair")).results
        (mime,) = [mime for mime in result.data if mime.startswith("application/vnd.vegalite.v")]
        specification = result.data[mime]
        assert f"/vega-lite/{mime.split('.')[2].removesuffix('+json')}." in specification["$schema"]
        (bars, *_) = specification.get("layer", [specification])
        assert (bars["mark"]["type"], bars["encoding"]["x"]["field"]) == ("bar", "shop")
        assert list(specification["datasets"].values()) == [[{"shop": "a", "sold": 1}, {"shop": "b", "sold": 2}]]
        assert "vegaEmbed" in result.data["text/html"]
        assert result.is_main_result is is_main


async def test_altair_keeps_to_the_renderer_that_was_chosen(guest: Guest) -> None:
    chosen = "import altair as alt\nwith alt.renderers.enable('mimetype'):\n    display(alt.Chart('u').mark_point())"
    (result,) = (await _or_skip(guest, chosen, "altair")).results
    assert "text/html" not in result.data
    assert len(result.data) == 2


async def test_a_chart_that_altair_refuses_is_an_error_and_costs_nothing_else(guest: Guest) -> None:
    await _or_skip(guest, "import altair as alt, pandas as pd", "altair")
    cell = await run_cell(guest, "alt.Chart(pd.DataFrame({'a': range(9000)})).mark_bar().encode(x='a')")
    assert cell.error is not None
    assert cell.error.name == "MaxRowsError"
    assert (await run_cell(guest, "1 + 1")).text == "2"


async def test_a_figure_of_plotly_is_itself_and_a_page(plain: Guest) -> None:
    async def file(path: str, text: str) -> None:
        async def content() -> AsyncIterator[bytes]:
            yield text.encode()

        await plain.write_file(f"plotly/{path}", content())

    base = "def to_json(self): return '{}'\n    def to_html(self, **options): return str(sorted(options))\n"
    await file("__init__.py", "")
    await file("basedatatypes.py", f"class BaseFigure:\n    {base}")
    await file("io.py", "def show(figure): raise OSError('no browser')\n")
    code = "import plotly.io\nfrom plotly.basedatatypes import BaseFigure\nplotly.io.show(BaseFigure())\nBaseFigure()"
    cell = await run_cell(plain, code)
    assert cell.end.status == "ok"
    for result in cell.results:
        assert result.data["application/vnd.plotly.v1+json"] == {}
        assert result.data["text/html"] == "['full_html', 'include_plotlyjs']"
    assert [result.is_main_result for result in cell.results] == [False, True]


async def test_notebook_habits(guest: Guest) -> None:
    assert (await run_cell(guest, "!echo from the shell")).printed() == "from the shell\n"
    assert (await run_cell(guest, "6 * 7;")).results == []
    await run_cell(guest, "40 + 2")
    assert (await run_cell(guest, "_ + 1")).text == "43"
    pip = await run_cell(guest, "%pip install something")
    assert "no network" in pip.printed("stderr")
    error = (await run_cell(guest, "def f():\n    raise ValueError('no')\nf()")).error
    assert error is not None
    assert "Cell In[" in error.traceback
    assert "\x1b" not in error.traceback
    assert (await run_cell(guest, "import os; [n for n in os.listdir() if 'ython' in n]")).text == "[]"


async def test_ten_thousand_figures_are_a_few_and_a_mark(guest: Guest) -> None:
    code = _PLOT + "plt.rcParams['figure.max_open_warning'] = 0\nfor n in range(300): plt.figure(figsize=(1, 1))"
    cell = await run_cell(guest, code, result_bytes=20_000)
    assert 1 <= len(cell.results) <= 40
    assert cell.end.truncated
    assert cell.results[-1].truncated
    assert (await run_cell(guest, "len(plt.get_fignums())")).text == "0"


async def test_objects_that_fail_to_show_themselves_cost_nothing_else(guest: Guest, plain: Guest) -> None:
    bad = "class Bad:\n    def __repr__(self):\n        raise ValueError('bad repr')\n"
    told = await run_cell(guest, bad + "Bad()")
    assert told.error is not None
    assert told.error.value == "bad repr"
    after = await run_cell(guest, bad + "display(Bad())\nraise KeyError('real')")
    assert after.error is not None
    assert after.error.name == "KeyError"
    cell = await run_cell(plain, bad + "Bad()")
    assert cell.text == "<Bad whose repr raises ValueError>"
    endless = "class Loop:\n    def __repr__(self):\n        while True: pass\nLoop()"
    for each in (guest, plain):
        looped = await run_cell(each, endless, timeout_s=0.4)
        assert (looped.end.status, looped.end.state_lost) == ("timeout", False)


async def test_what_is_too_long_is_cut_or_left_out_and_named(plain: Guest) -> None:
    cell = await run_cell(plain, "'x' * 5000", item_bytes=1000)
    (result,) = cell.results
    assert len(result.data["text/plain"]) == 1000
    assert [(cut.mime, cut.bytes) for cut in result.truncated] == [("text/plain", 5002)]
    assert cell.end.truncated
    code = "class Big:\n    def _repr_html_(self):\n        return 'h' * 5000\nBig()"
    (result,) = (await run_cell(plain, code, item_bytes=1000)).results
    assert "text/html" not in result.data
    assert result.truncated[0].mime == "text/html"
    many = await run_cell(plain, "for n in range(2000): display(n)")
    assert (len(many.results), many.end.truncated) == (1000, True)


async def test_values_that_no_json_has_travel_all_the_same(plain: Guest) -> None:
    code = (
        "class Odd:\n    def _repr_mimebundle_(self):\n"
        "        odd = {'nan': float('nan'), 'big': 2**80, 1: 'k', 's': '\\ud800'}\n"
        "        return {'application/json': odd}\nOdd()"
    )
    data = (await run_cell(plain, code)).results[0].data["application/json"]
    assert data == {"nan": None, "big": str(2**80), "1": "k", "s": "?"}
    deep = (
        "class Deep:\n    def _repr_json_(self):\n        x = []\n"
        "        for _ in range(900): x = [x]\n        return x\nDeep()"
    )
    assert (await run_cell(plain, deep)).end.status == "ok"
    assert json.dumps(data)
