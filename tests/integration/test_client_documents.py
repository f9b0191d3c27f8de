"""What the documents show runs as printed: the real client, node, scan and agent; machines are plain processes."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from mayfly.host.eventloop import open_portal
from mayfly.node.scanner import open_scanner
from mayfly.testing.service import open_service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.timeout(180)

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A node with libraries in its "image": those of this virtual environment."""
    missing = [name for name in ("IPython", "matplotlib", "pandas") if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} in this environment")
    libraries = next(path for path in sys.path if path.endswith("site-packages"))

    from mayfly.client import sandbox as module

    made = module._create_request
    monkeypatch.setattr(module, "_create_request", lambda options: made({**options, "envs": {"PYTHONPATH": libraries}}))
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))  # the node is in this process
    directory = tmp_path / "node"
    directory.mkdir()
    with (
        open_portal() as portal,
        portal.wrap_async_context_manager(open_scanner()) as scanner,
        portal.wrap_async_context_manager(open_service(directory, scanner=scanner)) as service,
    ):
        monkeypatch.setenv("MAYFLY_HOME", str(tmp_path / "state"))
        monkeypatch.setenv("MAYFLY_NODE", service.address)
        yield
    structlog.reset_defaults()


def test_the_tutorial_runs_as_it_is_printed(run_page: Callable[[Path], int]) -> None:
    assert run_page(ROOT / "docs" / "tutorial.md") > 12


@pytest.mark.parametrize(("page", "blocks"), [("how-to.md", 5), ("python.md", 3)], ids=str)
def test_the_pages_run_as_they_are_printed(run_page: Callable[[Path], int], page: str, blocks: int) -> None:
    assert run_page(ROOT / "docs" / page) > blocks


@pytest.mark.parametrize("name", ["analysis.py", "many.py", "thousand.py", "webserver.py"])
def test_the_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [name, "12"])  # of the thousand
    source = (ROOT / "examples" / name).read_text()
    exec(compile(source, name, "exec"), {"__name__": "__main__"})  # noqa: S102 - our own
    assert capsys.readouterr().out
