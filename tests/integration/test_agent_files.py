"""A sandbox's files: read, written, listed and watched with its user's rights, whatever lies there."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mayfly.errors import (
    FileDeniedError,
    FileMissingError,
    FilePresentError,
    FileSystemError,
    MayflyError,
    SandboxError,
)
from mayfly.testing.guests import open_guest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mayfly.guest.sandbox import Guest

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def guest() -> AsyncIterator[Guest]:
    async with open_guest() as guest:
        yield guest


async def _pieces(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def _write(guest: Guest, path: str, content: bytes = b"content", **options: object) -> None:
    await guest.write_file(path, _pieces(content), **options)  # type: ignore[arg-type]


async def _read(guest: Guest, path: str, **options: int) -> bytes:
    async with guest.read_file(path, **options) as pieces:
        return b"".join([piece async for piece in pieces])


async def _shell(guest: Guest, line: str) -> None:
    from mayfly.guest.shapes import ProcessEnd, ProcessSpec

    async with guest.open_process(ProcessSpec(shell=line)) as process:
        events = [event async for event in process]
    assert isinstance(events[-1], ProcessEnd)
    assert events[-1].exit_code == 0, events


async def test_what_was_written_is_read_again_whole_and_in_parts(guest: Guest) -> None:
    content = os.urandom(300_000)
    written = await guest.write_file("parts/deep/file.bin", _pieces(content[:1], content[1:200_000], content[200_000:]))
    assert (written.size, written.kind, written.name) == (300_000, "file", "file.bin")
    assert await _read(guest, "parts/deep/file.bin") == content
    assert await _read(guest, "parts/deep/file.bin", offset=65_000, length=3) == content[65_000:65_003]
    assert await _read(guest, "parts/deep/file.bin", offset=299_999) == content[-1:]
    assert await _read(guest, "parts/deep/file.bin", offset=400_000) == b""
    assert await _read(guest, "parts/deep/file.bin", length=0) == b""


async def test_a_file_is_replaced_appended_to_and_given_a_mode(guest: Guest) -> None:
    await _write(guest, "modes", b"long content")
    await _write(guest, "modes", b"short")
    assert await _read(guest, "modes") == b"short"
    await _write(guest, "modes", b"er", append=True, mode=0o600)
    assert await _read(guest, "modes") == b"shorter"
    info = await guest.stat("modes")
    assert info.mode == 0o600
    if os.getuid() == 0:
        assert (info.uid, info.gid) == (1000, 1000)
    await _write(guest, "empty", b"")
    assert (await guest.stat("empty")).size == 0


async def test_directories_are_made_listed_renamed_and_removed(guest: Guest) -> None:
    made = await guest.make_dir("tree/a/b")
    assert made.kind == "directory"
    await guest.make_dir("tree/a/b")
    await _write(guest, "tree/a/one")
    await _shell(guest, "cd tree; ln -s a/one link; ln -s / root")
    top = made.path.removesuffix("/a/b")
    assert [entry.path.removeprefix(top) for entry in await guest.list_dir("tree")] == ["/a", "/link", "/root"]
    deep = await guest.list_dir("tree", depth=9)
    assert [entry.path.removeprefix(top) for entry in deep] == ["/a", "/link", "/root", "/a/b", "/a/one"]
    assert (deep[1].kind, deep[1].target) == ("link", "a/one")
    assert (await guest.rename("tree/a", "tree/c")).name == "c"
    with pytest.raises(FilePresentError):
        await guest.make_dir("tree/c", parents=False)
    with pytest.raises(FilePresentError, match="not empty"):
        await guest.remove("tree")
    await guest.remove("tree", recursive=True)
    with pytest.raises(FileMissingError):
        await guest.stat("tree")
    assert (await guest.stat("/")).kind == "directory"


async def test_refusals_are_typed_and_leave_nothing(guest: Guest) -> None:
    await guest.make_dir("place")
    await _write(guest, "place-file")
    for call in (guest.stat("gone"), guest.list_dir("gone"), guest.remove("gone"), _read(guest, "gone")):
        with pytest.raises(FileMissingError):
            await call
    for path in ("/etc/passwd", "/etc/new"):
        if os.getuid() == 0:
            with pytest.raises(FileDeniedError):
                await _write(guest, path)
    if os.getuid() == 0:
        for hidden in ("/root/x", "/etc/shadow"):
            with pytest.raises(FileDeniedError):
                await _read(guest, hidden)
    with pytest.raises(FileSystemError, match="directory"):
        await _read(guest, "place")
    with pytest.raises(FileSystemError, match="directory"):
        await _write(guest, "place", os.urandom(10 << 20))
    with pytest.raises(FileSystemError, match="Not a directory"):
        await _write(guest, "place-file/y")


async def test_fifos_devices_and_sockets_are_refused_without_waiting(guest: Guest) -> None:
    await _shell(
        guest,
        "mkfifo fifo; ln -s /dev/zero zero; ln -s /dev/null null; ln -s loop loop;"
        "python3 -c \"import socket; socket.socket(socket.AF_UNIX).bind('sock')\"",
    )
    with anyio.fail_after(10):
        for path in ("fifo", "zero", "null", "sock", "/dev/tty", "loop"):
            with pytest.raises(SandboxError):
                await _read(guest, path)
            with pytest.raises(SandboxError):
                await _write(guest, path)
    assert (await guest.stat("fifo")).kind == "fifo"
    assert (await guest.stat("sock")).kind == "socket"


async def test_links_are_followed_with_the_users_rights_only(guest: Guest) -> None:
    await _write(guest, "real", b"real")
    await _shell(guest, "ln -sf real good; ln -sf /etc/shadow bad; ln -sf ../../../../../../../etc/passwd out")
    assert await _read(guest, "good") == b"real"
    assert await _read(guest, "out") == await _read(guest, "/etc/passwd")
    if os.getuid() == 0:
        with pytest.raises(FileDeniedError):
            await _read(guest, "bad")


async def test_the_agents_own_files_cannot_be_reached(guest: Guest) -> None:
    await _shell(guest, "ln -sf /proc/self/mem mem; ln -sf /proc/self/environ environ")
    for path in ("/proc/self/mem", "/proc/self/environ", "/proc/thread-self/mem", "mem", "environ"):
        with pytest.raises(FileDeniedError):
            await _read(guest, path)
        with pytest.raises(SandboxError):
            await _write(guest, path)
    assert b"MemTotal" in await _read(guest, "/proc/meminfo")


async def test_odd_names_are_names(guest: Guest) -> None:
    for name in ("new\nline", "tab\tquote'\"", "space ", "-rf", "umlaut ä", "x" * 255, "*", "\x1b[31m"):
        await _write(guest, f"odd/{name}", name.encode())
        assert await _read(guest, f"odd/{name}") == name.encode()
    assert len(await guest.list_dir("odd")) == 8
    await _shell(guest, "touch odd/$'\\xff'")
    assert "�" in [entry.name for entry in await guest.list_dir("odd")]
    for bad in ("x" * 256, "d/" * 3000, "nul\0"):
        with pytest.raises(MayflyError):
            await guest.stat(bad)
    await guest.remove("odd", recursive=True)


async def test_many_entries_are_listed_and_too_many_refused(guest: Guest) -> None:
    await _shell(guest, "mkdir many; cd many; seq 9000 | xargs touch")
    assert len(await guest.list_dir("many")) == 9000
    await _shell(guest, "cd many; seq 9001 10001 | xargs touch")
    with pytest.raises(FileSystemError, match="10000"):
        await guest.list_dir("many")
    await guest.remove("many", recursive=True)


async def test_a_reader_and_a_writer_that_stop_hold_up_nobody(guest: Guest) -> None:
    await _write(guest, "big", bytes(4 << 20))
    never = anyio.Event()

    async def stuck() -> AsyncIterator[bytes]:
        yield b"begun"
        await never.wait()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(guest.write_file, "stuck", stuck())
        async with guest.read_file("big") as pieces:
            assert len(await anext(aiter(pieces))) > 0
            assert (await guest.stat("big")).size == 4 << 20
        tasks.cancel_scope.cancel()
    assert await _read(guest, "stuck") == b"begun"


async def test_an_error_of_the_callers_own_content_comes_out_alone(guest: Guest) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await guest.write_file("broken", broken())


async def test_what_happens_in_a_watched_tree_is_told(guest: Guest) -> None:
    await guest.make_dir("seen/old")
    base = (await guest.stat("seen")).path
    async with guest.watch("seen", recursive=True) as events:
        await _write(guest, "seen/new/deep/file", b"x")
        await guest.rename("seen/old", "seen/young")
        await guest.remove("seen/new", recursive=True)
        await _write(guest, "seen/young/end", b"")
        told = []
        with anyio.fail_after(10):
            async for event in events:
                told.append((event.kind, event.path.removeprefix(base), event.is_directory))
                if event.path.endswith("/end"):
                    break
    assert told[0] == ("created", "/new", True)
    assert ("created", "/new/deep/file", False) in told
    assert ("removed", "/old", True) in told
    assert ("created", "/young", True) in told
    assert ("removed", "/new", True) in told
    with pytest.raises(FileMissingError):
        async with guest.watch("nowhere"):
            pass


async def test_any_path_gets_an_answer_or_a_typed_refusal(guest: Guest) -> None:
    paths = st.text(max_size=80) | st.lists(st.sampled_from(["..", ".", "", "a", "\n", "\ud800", "\0"])).map("/".join)

    @given(st.lists(paths, max_size=8))
    @settings(max_examples=1, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None)
    def collect(found: list[str]) -> None:
        wanted.extend(found)

    wanted: list[str] = ["", "/", ".", "..", "\ud800", "a\0b", "/proc/self", "/proc/self/fd/0", "//", "a/" * 4000]
    collect()
    for path in wanted:
        for call in (guest.stat(path), guest.list_dir(path), _read(guest, path)):
            try:
                await call
            except MayflyError:
                continue
    assert (await guest.stat("/")).kind == "directory"


async def test_what_is_refused_names_its_path(guest: Guest) -> None:
    with pytest.raises(FileMissingError, match=r"no/such: No such file") as caught:
        await guest.stat("no/such")
    assert caught.value.to_dict()["message"] == str(caught.value)
    with pytest.raises(FileMissingError, match=r"gone: No such file"):
        async with guest.read_file("gone"):
            pass
    with pytest.raises(FileMissingError, match=r"old to new: No such file"):
        await guest.rename("old", "new")
    with pytest.raises(FileMissingError, match=r"a\?b: No such file"):
        await guest.remove("a\x1bb")
