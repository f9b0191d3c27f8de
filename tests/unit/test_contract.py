"""Requests made from `protocol/openapi.yaml`, right and wrong ones: every answer is one that it describes."""

from __future__ import annotations

import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import HealthCheck, settings

from mayfly.host.eventloop import open_portal
from mayfly.sandbox_model import CreateSandbox
from mayfly.testing.nodes import open_server
from mayfly.testing.scripted_guest import BareLauncher, ScriptedGuest
from mayfly.testing.service import open_service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis, which makes requests from a description")
checks = pytest.importorskip("schemathesis.checks")

SPECIFICATION = Path(__file__).parents[2] / "protocol" / "openapi.yaml"
CHECKS = ("not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance")
schema = schemathesis.openapi.from_path(SPECIFICATION)


class Served(msgspec.Struct):
    portal: Any
    node: Any
    url: str

    def sandbox(self) -> str:
        """One that runs."""
        return str(self.portal.call(_running, self.node))


async def _running(node: Any) -> str:
    running = [one.id for one in node.sandboxes.list() if one.state == "running"]
    return running[0] if running else (await node.sandboxes.create(CreateSandbox())).id


@asynccontextmanager
async def served(directory: Path) -> AsyncIterator[tuple[Any, str]]:
    launcher = BareLauncher(directory)
    async with (
        open_service(directory, machines=4000, launcher=launcher, guest_of=ScriptedGuest) as service,
        open_server(service.node, tcp=True) as bound,
    ):
        yield service.node, f"http://127.0.0.1:{bound.tcp[1] if bound.tcp else 0}"


@pytest.fixture(scope="module")
def service() -> Iterator[Served]:
    with (
        tempfile.TemporaryDirectory() as directory,
        open_portal() as portal,
        portal.wrap_async_context_manager(served(Path(directory))) as (node, url),
    ):
        yield Served(portal, node, url)


@schema.include(path_regex="^/v1/sandboxes").exclude(path_regex="/(socket|ports/)").parametrize()  # type: ignore[untyped-decorator]
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_answer_is_one_that_the_description_has(case: Any, service: Served) -> None:
    named = case.path_parameters or {}
    if len(str(named.get("id", ""))) == 23 and case.method != "DELETE":
        named["id"] = service.sandbox()
    if "cid" in named and case.method != "DELETE":
        named["cid"] = "default"
    if isinstance(case.body, dict) and case.path.endswith("/commands"):
        for name in ("stdin", "pty"):  # a command that waits for input is followed for ever
            case.body.pop(name, None)
    response = case.call(base_url=service.url, timeout=20)
    wanted = [getattr(checks, name, None) or checks.CHECKS.get_one(name) for name in CHECKS]
    case.validate_response(response, checks=wanted)
