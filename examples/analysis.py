"""A data analysis with a plot, as a notebook would do it: `.venv/bin/python examples/analysis.py`."""

from pathlib import Path

from mayfly import Sandbox

SALES = "month,shop,amount\nJan,north,10\nJan,south,7\nFeb,north,25\nFeb,south,12\nMar,north,18\nMar,south,30\n"
PLOT = """
import matplotlib.pyplot as plt

axes = totals.plot.bar(title="Sales by month")
axes.set_ylabel("amount")
totals.to_csv("totals.csv")
"""
CELLS = [
    "import pandas as pd\nsales = pd.read_csv('sales.csv')\nsales.describe()",
    "totals = sales.groupby('month', sort=False)['amount'].sum()\ntotals.reset_index()",
    PLOT,
]

with Sandbox(limits={"mem_mib": 1024}) as sandbox:
    sandbox.files.write("sales.csv", SALES)
    for cell in CELLS:
        execution = sandbox.run_code(cell)
        if execution.error:
            print(execution.error.traceback)
            break
        if execution.text:
            print(execution.text)
        for result in execution.results:
            if result.png:
                print("wrote", result.save("sales.png"), result.chart and result.chart["kind"])
    (totals,) = sandbox.files.download("totals.csv")
    print(Path(totals).read_text())
