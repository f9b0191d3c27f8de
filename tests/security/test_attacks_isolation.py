"""ATTACKS: machines that know of each other. Twins differ, and nothing passes from one to the next."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import anyio
import pytest

if TYPE_CHECKING:
    from tests.conftest import LiveNode, Outcomes

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600), pytest.mark.usefixtures("settled")]

TWINS = 4
IDENTITY = """
import importlib, importlib.util, json, os, random, secrets, socket, ssl, tempfile, uuid
def line(path):
    with open(path) as file:
        return file.read().strip()
print(json.dumps({
    "os.urandom": os.urandom(16).hex(),
    "getrandom": os.getrandom(16).hex(),
    "secrets": secrets.token_hex(16),
    "random": random.random(),
    "random instance": random.Random().random(),
    "uuid1": str(uuid.uuid1()),
    "uuid4": str(uuid.uuid4()),
    "openssl": ssl.RAND_bytes(16).hex(),
    "temporary name": tempfile.mktemp(),
    "hash seed": hash("mayfly"),
    "stack": id(object()),
    "machine-id": line("/etc/machine-id"),
    "boot-id": line("/proc/sys/kernel/random/boot_id"),
    "kernel uuid": line("/proc/sys/kernel/random/uuid"),
    "host name": socket.gethostname(),
    "numpy": float(importlib.import_module("numpy").random.random()) if importlib.util.find_spec("numpy") else None,
}))
"""
BASH_RANDOM = "echo $RANDOM$RANDOM$RANDOM $SRANDOM"
MAY_BE_EQUAL = {"stack", "hash seed"}
"""Fixed when the interpreter starts, which a clone's has done in its template; no two programs share a machine."""
MARKER = "mark-of-the-first-machine"
LEAVES = f"""
import os
for place in ("/tmp", "/home/user", "/dev/shm", "/var/tmp"):
    try:
        with open(place + "/left", "w") as file:
            file.write("{MARKER}")
    except OSError:
        pass
held = b"{MARKER}" * 100_000
print("left")
"""
LOOKS = """
import os
mark = "-".join(["mark", "of", "the", "first", "machine"]).encode()
seen = []
for top in ("/tmp", "/home", "/dev/shm", "/var/tmp", "/run"):
    for place, _, names in os.walk(top):
        for name in names:
            path = os.path.join(place, name)
            try:
                with open(path, "rb") as file:
                    if name == "left" or mark in file.read(1 << 20):
                        seen.append(path)
            except OSError:
                pass
area = bytearray(64 << 20)
print(seen, bytes(area).find(mark))
"""


SEARCHES = """
import os, re, sys
# every letter in brackets and the words backwards, so that what is searched for is nowhere in this program's own memory
looked_for = [re.compile(b"".join(b"[%c]" % letter for letter in word[::-1].encode())) for word in sys.argv[1:]]
seen, places = [], 0
for top in ("/etc", "/run", "/tmp", "/home", "/var", "/dev/shm", "/mayfly"):
    for place, _, names in os.walk(top):
        for name in names:
            path = os.path.join(place, name)
            try:
                if os.path.isfile(path):
                    with open(path, "rb") as file:
                        data = file.read(4 << 20)
                    places += 1
                    seen += [path for pattern in looked_for if pattern.search(data)]
            except OSError:
                pass
for process in [name for name in os.listdir("/proc") if name.isdigit()]:
    try:
        with open(f"/proc/{process}/maps") as maps, open(f"/proc/{process}/mem", "rb") as memory:
            for line in maps:
                start, end = (int(part, 16) for part in line.split()[0].split("-"))
                try:
                    memory.seek(start)
                    data = memory.read(min(end - start, 16 << 20))
                except (OSError, ValueError, OverflowError):
                    continue
                places += 1
                seen += [f"memory of {process}" for pattern in looked_for if pattern.search(data)]
    except OSError:
        pass
print(seen, places > 50)
"""


@pytest.fixture(scope="module")
def twins(live_node: LiveNode, program: Any) -> list[dict[str, Any]]:
    anyio.run(live_node.client().build_template, {})  # so that all of them are clones of it
    outcomes = live_node.run_all({str(n): program(IDENTITY, {"policy": "research"}) for n in range(TWINS)})
    results = [outcomes[str(n)] for n in range(TWINS)]
    assert [result.status for result in results] == ["succeeded"] * TWINS, results[0].stderr
    return [json.loads(result.stdout) for result in results]


def test_twins_never_draw_the_same(twins: list[dict[str, Any]]) -> None:
    missing = {name for name in twins[0] if all(twin[name] is None for twin in twins)}  # not in this image
    for name in twins[0].keys() - MAY_BE_EQUAL - missing:
        assert len({str(twin[name]) for twin in twins}) == TWINS, f"{name}: {[twin[name] for twin in twins]}"


def test_shells_never_draw_the_same(live_node: LiveNode, program: Any) -> None:
    outcomes: Outcomes = live_node.run_all({str(n): program(BASH_RANDOM, {"lang": "bash"}) for n in range(3)})
    assert len({outcomes[str(n)].stdout for n in range(3)}) == 3


def test_nothing_that_one_machine_left_is_in_the_next(live_node: LiveNode, program: Any) -> None:
    hostile = {"policy": "research"}
    left = live_node.run_all({"first": program(LEAVES, hostile)})["first"]
    assert (left.status, left.stdout) == ("succeeded", "left\n")
    found = live_node.run_all({str(n): program(LOOKS, hostile) for n in range(2)})
    assert [found[str(n)].stdout for n in range(2)] == ["[] -1\n"] * 2


def test_no_memory_or_file_of_a_clone_holds_what_its_template_or_twins_are_called(
    live_node: LiveNode, program: Any, twins: list[dict[str, Any]]
) -> None:
    names = [twin[name] for twin in twins for name in ("machine-id", "boot-id", "host name", "os.urandom")]
    words = [*names, "tpl-"]
    options = {"policy": "research", "args": [word[::-1] for word in words], "timeout_s": 120}
    result = live_node.run_all({"search": program(SEARCHES, options)})["search"]
    assert (result.status, result.stdout) == ("succeeded", "[] True\n"), result.stderr
