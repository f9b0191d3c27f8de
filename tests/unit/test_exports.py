"""What `import mayfly` offers, and what it costs."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import mayfly

ROOT = Path(mayfly.__file__).parent
OURS = ["mayfly.config", "mayfly.validation", "mayfly.errors", "mayfly.model"] + [
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts)
    for package in ("client", "server", "cli")
    for path in sorted((ROOT / package).glob("*.py"))
    if path.stem not in {"__init__", "scan", "progress", "main", "inside"}
]


def test_the_public_names_are_few_sorted_and_there() -> None:
    assert mayfly.__all__ == sorted(mayfly.__all__)
    assert len(mayfly.__all__) <= 25
    for name in mayfly.__all__:
        assert getattr(mayfly, name) is not None
    assert set(mayfly.__all__) <= set(dir(mayfly))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        mayfly.nothing  # noqa: B018


@pytest.mark.parametrize("name", OURS)
def test_modules_export_what_they_say(name: str) -> None:
    module = import_module(name)
    for exported in module.__all__:
        assert hasattr(module, exported)


def _loaded_by(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.split())


def test_importing_mayfly_loads_nothing_else() -> None:
    assert not _loaded_by("import mayfly") & {"anyio", "asyncio", "click", "h11", "msgspec", "mayfly.errors"}


def test_help_loads_no_command_and_no_client() -> None:
    loaded = _loaded_by("from mayfly.cli import _run\n_run(['--help'])")
    assert not loaded & {"anyio", "asyncio", "msgspec", "rich", "mayfly.cli.run", "mayfly.client"}


def test_the_client_loads_no_server_and_no_scanner() -> None:
    loaded = _loaded_by("import mayfly\nmayfly.run")
    assert not {name for name in loaded if name.startswith(("starlette", "uvicorn", "rich", "click", "structlog"))}
    assert not {name for name in loaded if name.startswith(("mayfly.server", "mayfly.scan", "mayfly.node"))}
