"""The `python` image in a real microVM: its libraries work, and what is imported beforehand is not seen."""

from __future__ import annotations

import ast
import base64
import struct
import zlib
from typing import TYPE_CHECKING, Any

import pytest

from mayfly.images.guest import read_manifest
from mayfly.images.store import Store

if TYPE_CHECKING:
    from tests.conftest import LiveNode, Outcomes

    from mayfly.host.paths import StatePaths

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900), pytest.mark.usefixtures("settled")]

FIGURE = """
import base64, io
import pandas as pd
import matplotlib.pyplot as plt

frame = pd.read_csv(io.StringIO("city,year,sum\\nBled,1,2\\nBled,2,4\\nKranj,1,3\\nKranj,2,5\\n"))
print(frame.groupby("city")["sum"].mean().to_dict())
axes = frame.pivot(index="year", columns="city", values="sum").plot(kind="bar", title="sums")
out = io.BytesIO()
axes.figure.savefig(out, format="png", dpi=50)
print(plt.get_backend(), base64.b64encode(out.getvalue()).decode())
"""
EVERYTHING = """
import tempfile
import numpy as np, pandas as pd, scipy.optimize, sympy, openpyxl, PIL.Image, bs4, lxml.etree, networkx, yaml
from sklearn.linear_model import LinearRegression
from tabulate import tabulate
x = np.arange(6.0).reshape(-1, 1)
print(round(float(LinearRegression().fit(x, 2 * x[:, 0] + 1).coef_[0]), 6))
print(round(float(scipy.optimize.brentq(lambda v: v * v - 2, 0, 2)), 6))
print(sympy.integrate(sympy.Symbol("x") ** 2))
print(bs4.BeautifulSoup("<p>a<b>c</b></p>", "lxml").b.text)
with tempfile.TemporaryDirectory() as directory:
    pd.DataFrame({"a": [1, 2]}).to_excel(directory + "/t.xlsx")
    print(pd.read_excel(directory + "/t.xlsx")["a"].sum())
    PIL.Image.new("RGB", (3, 2)).save(directory + "/i.png")
    print(PIL.Image.open(directory + "/i.png").size)
print(networkx.shortest_path(networkx.path_graph(3), 0, 2), yaml.safe_load("a: [1]"))
"""
PLAIN = """
import sys
print(sorted(sys.modules), flush=True)
if len(sys.argv) == 1:
    import os
    os.execv(sys.executable, ["python3", sys.argv[0], "again"])
"""
RANDOM = "import random, numpy; print(random.getrandbits(64), numpy.random.bytes(8).hex())"


@pytest.fixture(scope="module")
def results(live_node: LiveNode, program: Any) -> Outcomes:
    return live_node.run_all(
        {
            "figure": program(FIGURE, {"timeout_s": 120}),
            "everything": program(EVERYTHING, {"timeout_s": 300, "mem_mib": 512}),
            "plain": program(PLAIN, {"timeout_s": 60}),
            **{f"random {number}": program(RANDOM, {"timeout_s": 120}) for number in range(3)},
        }
    )


def test_a_figure_is_drawn_to_a_png(results: Outcomes) -> None:
    means, drawn = results["figure"].stdout.splitlines()
    assert means == "{'Bled': 3.0, 'Kranj': 4.0}"
    backend, encoded = drawn.split()
    assert backend.lower() == "agg"
    picture = base64.b64decode(encoded)
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", picture[16:24])
    assert (width, height) == (320, 240)
    assert len(set(_pixels(picture))) > 16


def test_the_libraries_work(results: Outcomes) -> None:
    assert results["everything"].stdout.splitlines() == [
        "2.0",
        "1.414214",
        "x**3/3",
        "c",
        "3",
        "(3, 2)",
        "[0, 1, 2] {'a': [1]}",
    ]


def test_a_plain_program_sees_no_trace_of_what_was_imported_beforehand(results: Outcomes) -> None:
    first, second = results["plain"].stdout.splitlines()
    assert ast.literal_eval(first) == ast.literal_eval(second)


def test_clones_draw_different_random_numbers(results: Outcomes) -> None:
    drawn = [results[f"random {number}"].stdout.split() for number in range(3)]
    assert len({first for first, _ in drawn}) == 3
    assert len({second for _, second in drawn}) == 3


def test_the_python_image_is_small_and_names_its_licences(ready_state: StatePaths) -> None:
    manifest = read_manifest(Store(ready_state).current("image-python"))
    assert manifest["bytes"] < 120_000_000
    assert {"numpy", "pandas", "matplotlib", "scipy", "sklearn", "sympy", "PIL", "IPython"} <= set(manifest["modules"])
    assert manifest["packages"].keys() == manifest["licences"].keys()
    named = [package for package, names in manifest["licences"].items() if names]
    assert len(named) > len(manifest["packages"]) / 2


def _pixels(picture: bytes) -> bytes:
    """The decompressed rows of a PNG."""
    data, at = b"", 8
    while at < len(picture):
        size, kind = struct.unpack(">I4s", picture[at : at + 8])
        if kind == b"IDAT":
            data += picture[at + 8 : at + 8 + size]
        at += 12 + size
    return zlib.decompress(data)
