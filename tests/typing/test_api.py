"""`api.py` beside this file, and the examples, are what mypy says they are; a needless `type: ignore` is an error."""

from __future__ import annotations

from pathlib import Path

import pytest
from mypy import api

ROOT = Path(__file__).parents[2]
EXAMPLES = ("analysis", "client", "many", "thousand", "webserver")
USES = [Path(__file__).with_name("api.py"), *(ROOT / "examples" / f"{name}.py" for name in EXAMPLES)]


@pytest.mark.parametrize("page", USES, ids=lambda page: page.name)
def test_the_public_api_has_the_types_it_promises(page: Path) -> None:
    output, problems, code = api.run(["--config-file", str(ROOT / "pyproject.toml"), str(page)])
    assert (output.startswith("Success"), problems, code) == (True, "", 0), output
