"""ATTACKS: code that takes all it can get. Judged by the node's own count of its host, and by a neighbour's result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.conftest import LiveNode, Outcomes

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900), pytest.mark.usefixtures("settled")]

FORK_BOMB = "bomb() { bomb | bomb & }; bomb; while :; do bomb; done"
TOUCHES_MEMORY = """
import mmap
held = []
while True:
    area = mmap.mmap(-1, 4 << 20)
    for offset in range(0, 4 << 20, 4096):
        area[offset] = 1
    held.append(area)
"""
FILLS_DISKS = """
import errno, os
written = {}
for place in ("/dev/shm", "/tmp", "/home/user"):
    total, fd = 0, os.open(place + "/fill", os.O_WRONLY | os.O_CREAT)
    try:
        while total < 1 << 32:
            total += os.write(fd, b"x" * 65536)
    except OSError as error:
        written[place] = errno.errorcode[error.errno]
    os.close(fd)
    os.unlink(place + "/fill")
print(sorted(set(written.values())))
"""
EMPTY_FILES = """
import errno, os
os.mkdir("many")
count = 0
try:
    while count < 3_000_000:
        os.close(os.open(f"many/{count}", os.O_WRONLY | os.O_CREAT))
        count += 1
except OSError as error:
    print(errno.errorcode[error.errno], count)
"""
DESCRIPTORS = """
import errno, os, socket, sys
children = 0
try:
    while os.fork() == 0:
        children += 1
        if children == 20:
            break
except BlockingIOError:
    pass
held = []
try:
    while True:
        held.extend(socket.socketpair())
except OSError as error:
    if children == 0:
        os.write(1, errno.errorcode[error.errno].encode())
"""
ENDLESS_OUTPUT = "import os\nwhile True:\n    os.write(1, b'o' * 65536)\n    os.write(2, b'e' * 65536)\n"
FLOODS_LOGS = """
import os
tried = 0
for path in ("/dev/kmsg", "/dev/console", "/dev/tty", "/dev/ttyS0", "/dev/hvc0"):
    try:
        fd = os.open(path, os.O_WRONLY)
        for _ in range(20000):
            tried += os.write(fd, b"flood " * 100)
    except OSError:
        pass
print("wrote", tried)
"""
SPINS_EVERYWHERE = """
import os, signal
for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
os.write(1, b"spinning")
for _ in range(4):
    os.fork()
while True:
    pass
"""
STALLS_IN_C = "import re\nprint('stalling', flush=True)\nre.match(r'(a+)+$', 'a' * 64 + 'b')\n"
DAEMONISES = """
import os, signal, time
print("parent", flush=True)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for fd in range(64):
            try:
                os.close(fd)
            except OSError:
                pass
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            time.sleep(1)
    os._exit(0)
"""
READS_DRIVES = """
import os
os.write(1, b"reading")
while True:
    for place, _, names in os.walk("/usr"):
        for name in names:
            try:
                fd = os.open(os.path.join(place, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            except OSError:
                continue
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            while os.read(fd, 1 << 20):
                pass
            os.close(fd)
"""
FILLS_SCRATCH = """
import errno, os
written = 0
try:
    with open("/home/user/big", "wb", buffering=0) as file:
        while True:
            written += file.write(os.urandom(1 << 20))
except OSError as error:
    print(errno.errorcode[error.errno], written >> 20)
"""
FLOODS_DISK = """
import os, time
piece, started = bytes(1 << 20), time.monotonic()
fd = os.open("/home/user/flood", os.O_WRONLY | os.O_CREAT)
for _ in range(8):
    os.write(fd, piece)
os.fsync(fd)
print(time.monotonic() - started)
"""
NEIGHBOUR = "import hashlib\nprint(hashlib.sha256(b'x' * 10**6).hexdigest()[:8])\n"


@dataclass(frozen=True)
class Attack:
    results: Outcomes
    before: dict[str, Any]


@pytest.fixture(scope="module")
def attack(live_node: LiveNode, program: Any) -> Attack:
    hostile = {"policy": "research", "timeout_s": 200}
    short = {**hostile, "timeout_s": 10}
    vcpus = min(2, int(live_node.host()["limits"]["vcpus"]))
    live_node.run_all({"first": program("")})
    before = live_node.rest()
    results = live_node.run_all(
        {
            "fork bomb": program(FORK_BOMB, {**short, "lang": "bash"}),
            "memory": program(TOUCHES_MEMORY, hostile),
            "disks": program(FILLS_DISKS, hostile),
            "empty files": program(EMPTY_FILES, hostile),
            "descriptors": program(DESCRIPTORS, hostile),
            "output": program(ENDLESS_OUTPUT, {**short, "output_bytes": 10_000}),
            "logs": program(FLOODS_LOGS, hostile),
            "spin": program(SPINS_EVERYWHERE, {**short, "vcpus": vcpus}),
            "neighbour": program(NEIGHBOUR, {"timeout_s": 200}),
            "stall": program(STALLS_IN_C, short),
            "daemon": program(DAEMONISES, hostile),
            "drives": program(READS_DRIVES, short),
            "scratch": program(FILLS_SCRATCH, {**hostile, "scratch_mib": 64}),
            "disk flood": program(FLOODS_DISK, {**hostile, "scratch_mib": 64, "io_mbps": 1}),
        }
    )
    return Attack(results, before)


def test_a_fork_bomb_ends_at_its_deadline(attack: Attack) -> None:
    assert attack.results["fork bomb"].status in {"timeout", "failed", "oom"}


def test_touching_every_page_is_out_of_memory(attack: Attack) -> None:
    assert attack.results["memory"].status == "oom"


def test_file_systems_in_memory_are_full_before_the_machine_is(attack: Attack) -> None:
    result = attack.results["disks"]
    assert (result.status, result.stdout) == ("succeeded", "['ENOSPC']\n")


def test_empty_files_come_to_an_end(attack: Attack) -> None:
    result = attack.results["empty files"]
    assert (result.status, result.stdout.split()[0]) == ("succeeded", "ENOSPC")


def test_a_program_without_descriptors_left_still_gets_its_result(attack: Attack) -> None:
    result = attack.results["descriptors"]
    assert result.status == "succeeded"
    assert set(result.stdout.replace("ENFILE", "EMFILE").split("EMFILE")) == {""}


def test_endless_output_is_cut_and_ends_at_the_deadline(attack: Attack) -> None:
    result = attack.results["output"]
    assert (result.status, result.truncated) == ("timeout", True)
    assert (result.stdout, result.stderr) == ("o" * 10_000, "e" * 10_000)


def test_the_guests_logs_cannot_be_flooded(attack: Attack) -> None:
    result = attack.results["logs"]
    assert (result.status, result.stdout) == ("succeeded", "wrote 0\n")


def test_spinning_on_every_processor_with_signals_ignored_ends_at_the_deadline(attack: Attack) -> None:
    result = attack.results["spin"]
    assert (result.status, result.exit_code, result.stdout) == ("timeout", 124, "spinning")


def test_a_stall_inside_c_code_ends_at_the_deadline(attack: Attack) -> None:
    result = attack.results["stall"]
    assert (result.status, result.stdout) == ("timeout", "stalling\n")


def test_a_daemon_ends_with_the_program_that_left_it(attack: Attack) -> None:
    result = attack.results["daemon"]
    assert (result.status, result.stdout) == ("succeeded", "parent\n")


def test_reading_drives_without_end_ends_at_the_deadline(attack: Attack) -> None:
    result = attack.results["drives"]
    assert (result.status, result.stdout) == ("timeout", "reading")


def test_a_scratch_disk_is_full_at_its_size(attack: Attack) -> None:
    result = attack.results["scratch"]
    code, written = result.stdout.split()
    assert (result.status, code) == ("succeeded", "ENOSPC")
    assert 40 <= int(written) <= 64


def test_a_flood_of_writes_goes_no_faster_than_the_disk_may(attack: Attack) -> None:
    result = attack.results["disk flood"]
    assert result.status == "succeeded"
    assert float(result.stdout) > 4, "8 MiB at 1 MiB a second, less what a full bucket lets through"


def test_a_neighbour_is_not_harmed(attack: Attack) -> None:
    result = attack.results["neighbour"]
    assert (result.status, result.stdout) == ("succeeded", "1b977e9f\n")


def test_the_node_holds_no_more_than_before(attack: Attack, live_node: LiveNode) -> None:
    live_node.assert_flat(attack.before)
