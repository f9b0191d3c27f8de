"""Templates as the node's users see them: over HTTP, on the command line, and what their keys are made of."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mayfly.cli import _run
from mayfly.client.address import NodeAddress
from mayfly.client.core import NodeClient
from mayfly.errors import CapacityError, InvalidRequestError, MayflyError, NotFoundError
from mayfly.host.paths import StatePaths
from mayfly.images.store import Store
from mayfly.node.templates import TemplateRequest
from mayfly.pool.retention import KIND, last_used, mark_used, prune
from mayfly.pool.size import Size
from mayfly.testing.nodes import ScriptedNode, open_server, serve_in_thread
from mayfly.testing.templates import NoPool, SmallTemplates, small_templates

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mayfly.node.templates import NodeTemplates
    from mayfly.vmm.machine import SnapshotFiles


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedNode]:
    monkeypatch.setenv("MAYFLY_HOME", str(tmp_path))
    monkeypatch.setenv("MAYFLY_NODE", f"unix:{tmp_path / 'n'}")
    node = ScriptedNode()
    with serve_in_thread(node, unix_socket=tmp_path / "n"):
        yield node


def _mayfly(*args: str) -> int:
    return _run(list(args))


# -- the command line --------------------------------------------------------------------------------------


def test_templates_are_made_listed_and_removed(node: ScriptedNode, capfd: pytest.CaptureFixture[str]) -> None:
    assert _mayfly("template", "ls") == 0
    assert "none" in capfd.readouterr().out
    assert _mayfly("template", "build", "--mem", "512", "--vcpus", "2", "--scratch", "64", "--json") == 0
    made = json.loads(capfd.readouterr().out)
    assert (made["mem_mib"], made["vcpus"], made["scratch_mib"], made["image"]) == (512, 2, 64, "python")
    assert _mayfly("template", "ls") == 0
    assert "512 MiB, 2 CPU, 64 MiB disk" in capfd.readouterr().out
    assert _mayfly("template", "rm", made["key"][:8]) == 0
    assert made["key"][:12] in capfd.readouterr().out
    assert node.templates.rows == []


def test_all_templates_are_removed_when_that_is_said(node: ScriptedNode, capfd: pytest.CaptureFixture[str]) -> None:
    for mem in ("256", "512"):
        assert _mayfly("template", "build", "--mem", mem) == 0
    assert _mayfly("template", "rm", "--all", "--json") == 0
    assert len(json.loads(capfd.readouterr().out.splitlines()[-1])) == 2
    assert node.templates.rows == []


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["rm"], "say --all"),
        (["rm", "abcd", "--all"], "say --all"),
        (["build", "--mem", "1"], "mem_mib must be a whole number from 64 to 16,384, not 1"),
        (["build", "--vcpus", "9"], "vcpus must be a whole number from 1 to 8, not 9"),
        (["build", "--image", "No!"], "image must be text"),
    ],
)
@pytest.mark.usefixtures("node")
def test_wrong_use_is_one_sentence(capfd: pytest.CaptureFixture[str], args: list[str], said: str) -> None:
    assert _mayfly("template", *args) == 2
    assert said in capfd.readouterr().err


def test_without_a_node_nothing_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MAYFLY_HOME", str(tmp_path))
    monkeypatch.delenv("MAYFLY_NODE", raising=False)
    monkeypatch.setattr("mayfly.client.discovery.SYSTEM_SOCKET", tmp_path / "none")
    assert _mayfly("template", "ls") == 125
    assert "no node is running" in capfd.readouterr().err


# -- HTTP --------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_body_that_is_no_request_is_refused_by_field(tmp_path: Path) -> None:
    async with open_server(ScriptedNode(), unix_socket=tmp_path / "n"):
        client = NodeClient(NodeAddress(unix_socket=tmp_path / "n"))
        for body, field in (
            ({"mem_mib": "much"}, "mem_mib"),
            ({"size": 1}, "size"),
            ({"scratch_mib": -1}, "scratch_mib"),
        ):
            with pytest.raises(InvalidRequestError) as caught:
                await client.build_template(body)
            assert caught.value.field == field
        with pytest.raises(NotFoundError):
            await client.remove_template("no/such?key")


# -- the node's templates ----------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(StatePaths(tmp_path).make())


@pytest.fixture
def pool() -> NoPool:
    return NoPool()


@pytest.fixture
def ours(tmp_path: Path, pool: NoPool) -> NodeTemplates:
    return small_templates(tmp_path, pool=pool)[0]


@pytest.mark.anyio
async def test_a_template_is_made_once_described_and_removed_with_its_waiting_clones(
    ours: NodeTemplates, pool: NoPool
) -> None:
    made = await ours.build(TemplateRequest(mem_mib=128))
    assert await ours.build(TemplateRequest(mem_mib=128)) == {
        **made,
        "last_used": pytest.approx(made["last_used"], abs=5),
    }
    assert (made["mem_mib"], made["current"], made["waiting"]) == (128, True, 2)
    assert made["bytes"] == 10_000
    assert [row["key"] for row in await ours.list()] == [made["key"]]
    removed = await ours.remove(made["key"][:6])
    assert (removed["key"], pool.given_up) == (made["key"], [made["key"]])
    assert await ours.list() == []


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (TemplateRequest(image="node"), "image"),
        (TemplateRequest(mem_mib=4096), "mem_mib"),
        (TemplateRequest(mem_mib=16384), "limits.mem_mib"),
        (TemplateRequest(vcpus=8), "limits.vcpus"),
    ],
)
async def test_what_cannot_be_made_here_is_refused_by_field(
    ours: NodeTemplates, request_: TemplateRequest, field: str
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        await ours.build(request_)
    assert caught.value.field == field


@given(key=st.text(max_size=40))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_key_is_a_template_or_a_typed_error(ours: NodeTemplates, key: str) -> None:
    with pytest.raises((InvalidRequestError, NotFoundError)):
        anyio.run(ours.remove, key)


@pytest.mark.anyio
async def test_a_beginning_that_fits_several_is_refused(ours: NodeTemplates, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = iter(["abcd" + "0" * 28, "abcd" + "1" * 28])
    known: dict[Size, str] = {}
    monkeypatch.setattr(
        SmallTemplates, "key", lambda _, size: known[size] if size in known else known.setdefault(size, next(keys))
    )
    for mem in (128, 256):
        await ours.build(TemplateRequest(mem_mib=mem))
    with pytest.raises(InvalidRequestError, match="2 templates"):
        await ours.remove("abcd")
    await ours.remove("abcd1")


@pytest.mark.anyio
async def test_one_that_is_being_made_is_not_removed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    templates = SmallTemplates(store)
    inside, go_on = anyio.Event(), anyio.Event()

    async def slow(self: SmallTemplates, size: Size, directory: Path) -> None:
        inside.set()
        await go_on.wait()
        for name in ("vmstate", "memory"):
            (directory / name).write_bytes(b"x")

    monkeypatch.setattr(SmallTemplates, "_take_snapshot", slow)
    async with anyio.create_task_group() as group:
        group.start_soon(templates.build, Size(64, 1))
        await inside.wait()
        with pytest.raises(CapacityError, match="being made"):
            templates.remove(templates.key(Size(64, 1)))
        go_on.set()


@pytest.mark.anyio
async def test_two_tasks_make_one_template(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    templates, made = SmallTemplates(store), []
    real = SmallTemplates._take_snapshot

    async def counted(self: SmallTemplates, size: Size, directory: Path) -> SnapshotFiles:
        made.append(size)
        return await real(self, size, directory)

    monkeypatch.setattr(SmallTemplates, "_take_snapshot", counted)
    found: list[SnapshotFiles] = []

    async def build() -> None:
        found.append(await templates.build(Size(64, 1)))

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(build)
    assert made == [Size(64, 1)]
    assert len(set(found)) == 1


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("written", "found"),
    [
        (b"[[8192,4096],[40960,12288]]", ((8192, 4096), (40960, 12288))),
        (b"[]", ()),
        (b"", ()),
        (b"[[1]]", ()),
        (b'{"a":1}', ()),
        (b"[[1,2],", ()),
        (b"\xff" * 100, ()),
        (b"[" + b"[1,2]," * 300_000 + b"[1,2]]", ()),
    ],
    ids=["runs", "none", "empty", "no length", "no list", "cut off", "no text", "more than a mebibyte"],
)
async def test_a_working_set_is_kept_with_its_template_and_nonsense_is_none(
    store: Store, monkeypatch: pytest.MonkeyPatch, written: bytes, found: tuple[tuple[int, int], ...]
) -> None:
    async def write(_: SmallTemplates, __: Size, snapshot: SnapshotFiles) -> None:
        snapshot.memory.with_name("working-set.json").write_bytes(written)

    monkeypatch.setattr(SmallTemplates, "_find_working_set", write)
    assert (await SmallTemplates(store).build(Size(64, 1))).working_set == found
    again = await SmallTemplates(store).prepare(Size(64, 1))
    assert again is not None
    assert again.working_set == found


# -- what is kept ------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_what_was_used_longest_ago_goes_first_and_nothing_while_the_budget_holds(store: Store) -> None:
    templates = SmallTemplates(store)
    for mem in (64, 65, 66):
        await templates.build(Size(mem, 1))
    entries = {info.mem_mib: store.get(KIND, info.key) for info in templates.list()}
    for mem, entry in entries.items():
        assert entry is not None
        os.utime(entry.path.with_name(f".used-{entry.key}"), (mem, mem))
    assert prune(store, budget_bytes=1 << 30, keep=()) == []
    mark_used(entries[64])  # type: ignore[arg-type]
    assert last_used(entries[64]) > 1e9  # type: ignore[arg-type]
    removed = prune(store, budget_bytes=1, keep={entries[66].key})  # type: ignore[union-attr]
    assert removed == [entries[65].key, entries[64].key]  # type: ignore[union-attr]


@pytest.mark.anyio
async def test_damaged_templates_go_first_whatever_the_budget(store: Store) -> None:
    templates = SmallTemplates(store)
    await templates.build(Size(64, 1))
    (info,) = templates.list()
    entry = store.get(KIND, info.key)
    assert entry is not None
    entry.file("memory").chmod(0o600)
    entry.file("memory").write_bytes(b"short")
    assert prune(store, budget_bytes=1 << 40, keep=()) == [info.key]
    assert not entry.path.exists()


def test_litter_of_dead_builders_is_swept_and_that_of_live_ones_is_not(store: Store) -> None:
    ticks = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    live = store.build_path / f"snapshot-{os.getpid()}-{ticks}-aaaa"
    reused = store.build_path / f"snapshot-{os.getpid()}-1-bbbb"
    dead = store.build_path / "snapshot-4194303-99-cccc"
    odd = store.build_path / "snapshot-"
    for path in (live, reused, dead, odd):
        path.mkdir(parents=True)
    assert SmallTemplates(store).sweep() == 3
    assert live.exists()


def test_no_space_for_a_template_is_told_with_figures(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 10 << 20})
    monkeypatch.setattr("mayfly.pool.templates.shutil.disk_usage", lambda _: usage)
    with pytest.raises(MayflyError, match="320 MiB needed, 10 MiB free"):
        anyio.run(SmallTemplates(store).build, Size(256, 1))
