"""The documents are complete, current and true as far as a machine can see."""

from __future__ import annotations

import ast
import importlib.util
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

import mayfly
from mayfly import errors
from mayfly.bench.metrics import METRICS
from mayfly.client import RunOptions
from mayfly.config import Config
from mayfly.model import Execution, ExecutionRequest, Limits

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    page for folder in (ROOT, ROOT / "docs", ROOT / "protocol", ROOT / "packaging") for page in folder.glob("*.md")
)
EXPECTED = {
    "README.md", "ARCHITECTURE.md", "SPECIFICATION.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/cli.md",
    "docs/configuration.md", "docs/errors.md", "docs/http-api.md", "docs/performance.md", "docs/python.md",
    "docs/system-service.md", "docs/troubleshooting.md", "protocol/guest-frames.md",
}  # fmt: skip
KNOWN_HOSTS = {
    "127.0.0.1", "json-schema.org", "docs.astral.sh", "docs.pytest.org", "example.com",
    "example.invalid", "example.net", "example.org", "firecracker-microvm.github.io", "github.com",
    "keepachangelog.com", "localhost", "pypi.org", "semver.org", "www.apache.org", "www.kernel.org",
}  # fmt: skip
"""Hosts that the documents, the set-up and the build may name."""

_FENCE = re.compile(r"^(```|~~~).*?^\1", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(?<!!)\[[^\]\n]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} +(.+?)\s*$", re.MULTILINE)
_TEST = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")
_URL = re.compile(r"https?://[^\s\"'`)>\]|{}\\,]+")
_OWN_BUSINESS = re.compile(
    r"\b(?:sub-?sessions?|issues? #?\d{1,2}\b(?!\d)|the (?:brief|lead builder)|as an AI|language model's session)\b",
    re.IGNORECASE,
)


def _id(page: Path) -> str:
    return str(page.relative_to(ROOT))


@cache
def _prose(page: Path) -> str:
    return _FENCE.sub("", page.read_text())


@cache
def _anchors(page: Path) -> set[str]:
    """Anchors as GitHub makes them from headings."""
    found: dict[str, int] = {}
    names = set()
    for heading in _HEADING.findall(_prose(page)):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        count = found.get(slug, 0)
        found[slug] = count + 1
        names.add(f"{slug}-{count}" if count else slug)
    return names


def test_the_documents_are_there() -> None:
    assert {_id(page) for page in PAGES} >= EXPECTED
    assert "Apache License" in (ROOT / "LICENSE").read_text()[:200]


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in _LINK.findall(_prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in _anchors(target)):
            broken.append(link)
    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_tests_that_a_page_names_exist(page: Path) -> None:
    missing = [
        f"{path}::{name}"
        for path, name in _TEST.findall(page.read_text())
        if not (ROOT / path).exists() or (name and name not in _functions(ROOT / path))
    ]
    assert not missing


@cache
def _functions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}


def test_every_promise_names_its_test_or_says_that_it_is_pending() -> None:
    rows = [
        line for line in (ROOT / "SPECIFICATION.md").read_text().splitlines() if re.match(r"\| *[A-Z]+-\d+ *\|", line)
    ]
    assert len(rows) > 20
    measured = [row for row in rows if row.startswith("| PERF-")]
    assert not [row for row in rows if row not in measured and not _TEST.search(row) and "test pending" not in row]
    named = {name for row in measured for name in re.findall(r"`(\w+)`", row.rstrip("| ").rpartition("|")[2])}
    assert all(re.search(r"\| `\w+`(, `\w+`)* \|$", row) for row in measured)
    assert {metric.id for metric in METRICS if metric.target} <= named <= {metric.id for metric in METRICS}


def test_every_metric_of_the_benchmark_is_explained() -> None:
    for page in ("SPECIFICATION.md", "docs/performance.md"):
        text = (ROOT / page).read_text()
        assert not [metric.id for metric in METRICS if f"`{metric.id}`" not in text], page


def test_invariants_of_the_architecture_name_their_tests() -> None:
    page = (ROOT / "ARCHITECTURE.md").read_text()
    section = page.partition("## Invariants")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("- ")]
    assert len(rows) > 8
    assert not [row for row in rows if not _TEST.search(row)]


def test_generated_parts_are_current() -> None:
    spec = importlib.util.spec_from_file_location("make_docs", ROOT / "scripts" / "make_docs.py")
    if spec is None or spec.loader is None:
        pytest.fail("scripts/make_docs.py cannot be loaded")
    make_docs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_docs)
    pages = make_docs.pages()
    assert {_id(page) for page in pages} >= {"docs/cli.md", "docs/configuration.md", "docs/errors.md"}
    stale = [_id(page) for page in pages if make_docs.renew(page.read_text()) != page.read_text()]
    assert not stale, f"run scripts/make_docs.py: {stale}"


def test_every_setting_and_environment_variable_is_documented(modules: list[Any]) -> None:
    page = (ROOT / "docs" / "configuration.md").read_text()
    wanted = {f"MAYFLY_{name.upper()}" for name in Config.__struct_fields__ if name != "limits"}
    wanted |= {f"MAYFLY_LIMITS_{name.upper()}" for name in Limits.__struct_fields__}
    for module in modules:
        wanted |= set(_environment(module.tree))
    assert len(wanted) > 15
    assert not sorted(name for name in wanted if name not in page)


def _environment(tree: ast.AST) -> Iterator[str]:
    """Names that are looked up in the environment, in whichever way."""
    for node in ast.walk(tree):
        key: ast.AST | None = None
        if isinstance(node, ast.Subscript) and ast.unparse(node.value) in {"os.environ", "env"}:
            key = node.slice
        elif isinstance(node, ast.Call) and node.args:
            asked = ast.unparse(node.func)
            if asked in {"os.environ.get", "os.environ.pop", "env.get", "os.getenv"}:
                key = node.args[0]
        if isinstance(key, ast.Constant) and isinstance(key.value, str) and key.value.isupper():
            yield key.value


def test_every_error_code_is_documented() -> None:
    page = (ROOT / "docs" / "errors.md").read_text()
    codes = {getattr(errors, name).code for name in errors.__all__ if name.endswith("Error")}
    assert not sorted(code for code in codes if f"`{code}`" not in page)


def test_every_route_is_documented() -> None:
    import yaml

    page = (ROOT / "docs" / "http-api.md").read_text()
    paths = yaml.safe_load((ROOT / "protocol" / "openapi.yaml").read_text())["paths"]
    missing = [
        f"{method.upper()} {path}"
        for path, methods in paths.items()
        for method in methods
        if f"{method.upper()} {path}" not in page
    ]
    assert not missing


def test_every_field_of_requests_and_results_is_documented() -> None:
    http, python = ((ROOT / "docs" / name).read_text() for name in ("http-api.md", "python.md"))
    assert not [name for name in ExecutionRequest.__struct_fields__ if f"| `{name}` |" not in http]
    assert not [name for name in Execution.__struct_fields__ if f"`{name}`" not in http or f"`{name}`" not in python]
    assert not [name for name in RunOptions.__annotations__ if f"`{name}`" not in python]


def test_every_public_name_is_documented() -> None:
    page = (ROOT / "docs" / "python.md").read_text()
    assert not [name for name in mayfly.__all__ if name not in page]


def test_every_package_is_on_the_code_map() -> None:
    page = (ROOT / "ARCHITECTURE.md").read_text()
    code_map = page.partition("## Code map")[2].partition("\n## ")[0]
    packages = {path.parent.name for path in (ROOT / "src" / "mayfly").glob("*/__init__.py")}
    assert not sorted(name for name in packages if f"`{name}/`" not in code_map)


def test_messages_that_pages_explain_are_said_somewhere(modules: list[Any]) -> None:
    said = "\n".join(
        node.value
        for module in modules
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ).replace("`", "")
    fragments = []
    for page in (ROOT / "README.md", ROOT / "docs" / "troubleshooting.md"):
        table = page.read_text().partition("## Troubleshooting" if page.name == "README.md" else "# Troubleshooting")[2]
        for cell in re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE):
            fragments += [part.strip(" ,:;.") for part in cell.split("…")]
    assert len(fragments) > 15
    assert not [fragment for fragment in fragments if fragment not in said]


def test_the_version_has_an_entry_in_the_changelog() -> None:
    assert f"## {mayfly.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_nothing_speaks_of_how_it_was_made(files: list[Path]) -> None:
    wrong = []
    for path in files:
        text = _text(path)
        if path != Path(__file__) and text is not None:
            wrong += [f"{path.relative_to(ROOT)}: {found[0]}" for found in _OWN_BUSINESS.finditer(text)]
    assert not wrong, "\n".join(wrong)


def test_only_known_hosts_are_named(files: list[Path]) -> None:
    """A mirror or registry of one machine has no place in the repository."""
    wrong = []
    for path in filter(_is_shipped, files):
        for url in _URL.findall(_text(path) or ""):
            try:
                host = urlsplit(url).hostname or ""
            except ValueError:  # `http://[` in a pattern or a placeholder
                continue
            if host and host not in KNOWN_HOSTS and "." in host:
                wrong.append(f"{path.relative_to(ROOT)}: {url}")
    assert not wrong, "\n".join(wrong)


def _is_shipped(path: Path) -> bool:
    """All but tests and the scan's examples, which name hosts that do not exist."""
    inside = path.relative_to(ROOT).parts
    return inside[0] != "tests" and "scan" not in inside and not path.name.startswith("scan")


def _text(path: Path) -> str | None:
    try:
        return path.read_text()
    except UnicodeDecodeError:
        return None
