"""Sandboxes made from a template that is named: over HTTP and by the client, before a node of bare machines."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio.lowlevel
import msgspec
import pytest

from mayfly import AsyncSandbox, Limits
from mayfly.client.address import NodeAddress
from mayfly.client.http import open_exchange
from mayfly.errors import InvalidRequestError
from mayfly.node.templates import TemplateRequest
from mayfly.testing.scripted_guest import BareLauncher, ScriptedGuest
from mayfly.testing.service import open_service
from mayfly.testing.templates import small_templates

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from mayfly.node.templates import NodeTemplates
    from mayfly.testing.templates import SmallTemplates

pytestmark = pytest.mark.anyio


class Served:
    def __init__(self, socket: Path, launcher: BareLauncher, templates: NodeTemplates, made: SmallTemplates) -> None:
        self.address = NodeAddress(unix_socket=socket)
        self.launcher = launcher
        self.templates = templates
        self.store = made

    async def build(self, **size: Any) -> str:
        return str((await self.templates.build(TemplateRequest(**size)))["key"])

    async def refused(self, **options: Any) -> InvalidRequestError:
        with pytest.raises(InvalidRequestError) as caught:
            await AsyncSandbox.create(node=self.address, **options)
        assert self.launcher.specs == []
        return caught.value


@asynccontextmanager
async def served(directory: Path, **options: Any) -> AsyncIterator[Served]:
    launcher = BareLauncher(directory)
    guest_of: Any = ScriptedGuest
    templates, made = small_templates(directory / "t")
    given: dict[str, Any] = {"launcher": launcher, "guest_of": guest_of, "templates": templates, **options}
    async with open_service(directory, **given) as service:
        yield Served(service.unix_socket, launcher, templates, made)


@pytest.fixture
async def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Served]:
    monkeypatch.setenv("MAYFLY_HOME", str(tmp_path / "state"))
    async with served(tmp_path) as node:
        yield node


async def test_a_template_stands_for_image_and_size(node: Served) -> None:
    key = await node.build(mem_mib=512, vcpus=2, scratch_mib=64)
    async with await AsyncSandbox.create(node=node.address, template=key[:8], limits={"pids": 50}) as sandbox:
        info = await sandbox.info()
        assert (info.template, info.image) == (key, "python")
        assert (info.limits.mem_mib, info.limits.vcpus, info.limits.scratch_mib, info.limits.pids) == (512, 2, 64, 50)
        assert (await sandbox.run_code("result 42")).text == "42"
    (spec,) = node.launcher.specs
    assert (spec.mem_mib, spec.vcpus, spec.scratch_mib, spec.image) == (512, 2, 64, "python")


@pytest.mark.parametrize(
    "agreeing",
    [
        {"image": "python", "limits": {"mem_mib": 512, "vcpus": 1, "scratch_mib": 0}},
        {"limits": Limits(timeout_s=5)},
        {"limits": Limits(mem_mib=512)},
    ],
    ids=["said again", "of another kind", "one of the size"],
)
async def test_limits_that_agree_with_the_template_are_taken(node: Served, agreeing: dict[str, Any]) -> None:
    key = await node.build(mem_mib=512)
    async with await AsyncSandbox.create(node=node.address, template=key, **agreeing) as sandbox:
        assert (await sandbox.info()).limits.mem_mib == 512


@pytest.mark.parametrize(
    ("options", "field", "said"),
    [
        ({"limits": {"mem_mib": 256}}, "limits.mem_mib", "limits.mem_mib is 256, but template"),
        ({"limits": Limits(mem_mib=1024)}, "limits.mem_mib", "has 512 MiB of memory"),
        ({"limits": {"vcpus": 2}}, "limits.vcpus", "has 1 processors"),
        ({"limits": {"scratch_mib": 0}}, "limits.scratch_mib", "has a scratch disk of 64 MiB"),
        ({"image": "node"}, "image", "starts from python"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_what_contradicts_the_template_is_named(
    node: Served, options: dict[str, Any], field: str, said: str
) -> None:
    key = await node.build(mem_mib=512, scratch_mib=64)
    error = await node.refused(template=key[:12], **options)
    assert error.field == field
    assert said in error.message


async def test_the_usual_size_of_the_configuration_does_not_contradict(
    node: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAYFLY_LIMITS_MEM_MIB", "128")
    monkeypatch.setenv("MAYFLY_LIMITS_PIDS", "33")
    async with await AsyncSandbox.create(node=node.address, template=await node.build(mem_mib=512)) as sandbox:
        limits = (await sandbox.info()).limits
    assert (limits.mem_mib, limits.pids) == (512, 33)


@pytest.mark.parametrize("name", ["feed", "mine", "abc", "00", "g" * 12])
async def test_a_name_that_fits_none_lists_those_there_are(node: Served, name: str) -> None:
    key = await node.build(mem_mib=512, scratch_mib=64)
    error = await node.refused(template=name)
    assert error.field == "template"
    assert f"{key[:12]} (python, 512 MiB, 1 CPU, 64 MiB disk)" in str(error)


async def test_where_there_are_none_it_says_how_to_make_one(node: Served) -> None:
    assert "mayfly template build" in str(await node.refused(template="abcd"))


async def test_a_beginning_that_fits_several_lists_just_these(node: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {64: "abcd" + "0" * 28, 128: "abcd" + "1" * 28, 256: "ef01" + "2" * 28}
    monkeypatch.setattr(type(node.store), "key", lambda _, size: keys[size.mem_mib])
    for mem_mib in keys:
        await node.build(mem_mib=mem_mib)
    error = await node.refused(template="abcd")
    assert (error.field, keys[64][:12] in str(error), keys[128][:12] in str(error)) == ("template", True, True)
    assert keys[256][:12] not in str(error)
    async with await AsyncSandbox.create(node=node.address, template="abcd1") as sandbox:
        assert (await sandbox.info()).limits.mem_mib == 128


async def test_one_of_other_parts_says_so_and_what_to_do(node: Served) -> None:
    old = await node.build(mem_mib=512)
    node.store.change_parts("another agent")
    error = await node.refused(template=old[:12])
    assert error.field == "template"
    assert f"template {old[:12]} was made of other parts" in error.message
    assert "mayfly template build --image python --mem 512" in str(error)
    new = await node.build(mem_mib=512)
    assert f"{new[:12]} is its like" in str(await node.refused(template=old[:12]))


async def test_a_damaged_one_does_not_keep_the_sandbox_from_being_made(
    node: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a size that nobody named: the template is made again, and the machine booted meanwhile."""
    key = await node.build(mem_mib=512)

    async def damaged(_: object) -> None:
        await anyio.lowlevel.checkpoint()

    monkeypatch.setattr(node.store, "prepare", damaged)
    async with await AsyncSandbox.create(node=node.address, template=key[:12]) as sandbox:
        assert (await sandbox.info()).limits.mem_mib == 512


async def test_a_node_without_templates_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAYFLY_HOME", str(tmp_path / "state"))
    async with served(tmp_path, templates=None) as node:
        error = await node.refused(template="abcd")
        assert (error.field, "do not come from templates" in error.message) == ("template", True)


async def test_over_http_what_is_absent_is_the_templates(node: Served) -> None:
    key = await node.build(mem_mib=128)
    body = msgspec.json.encode({"template": key[:6], "limits": {"timeout_s": 9}})
    headers = {"Content-Type": "application/json"}
    async with open_exchange(
        node.address, "POST", "/v1/sandboxes", headers=headers, content=body, deadline_s=20
    ) as answer:
        info = msgspec.json.decode(await answer.read(limit_bytes=1 << 20, deadline_s=20))
    assert answer.status == 201
    assert (info["template"], info["limits"]["mem_mib"], info["limits"]["timeout_s"]) == (key, 128, 9)


async def test_without_a_template_the_language_chooses_the_image(node: Served) -> None:
    error = await node.refused(lang="javascript")
    assert (error.field, "not 'node'" in error.message) == ("image", True)
    assert "mayfly image build" in str(error)
    async with await AsyncSandbox.create(node=node.address, lang="javascript", image="python") as sandbox:
        assert (await sandbox.info()).image == "python"
