"""Small machines, machines with disks, and templates made and removed by hand, in real microVMs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.conftest import LiveNode

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600), pytest.mark.usefixtures("settled")]

WRITES = """
import os
with open("/home/user/big", "wb") as file:
    for _ in range(200):
        file.write(os.urandom(1 << 20))
print(os.path.getsize("/home/user/big") >> 20, open("/proc/mounts").read().count("/dev/vdc /tmp ext4"))
"""


def test_the_smallest_machine_runs_both_languages(live_node: LiveNode, program: Any) -> None:
    small = {"mem_mib": 64}
    results = live_node.run_all(
        {"python": program("print(sum(range(1000)))", small), "bash": program("echo small", {**small, "lang": "bash"})}
    )
    assert (results["python"].stdout, results["bash"].stdout) == ("499500\n", "small\n")


def test_a_scratch_disk_holds_more_than_the_memory(live_node: LiveNode, program: Any) -> None:
    options = {"mem_mib": 128, "scratch_mib": 256, "policy": "research", "timeout_s": 120}
    for _ in range(2):  # booted or restored, the disk is empty at first
        result = live_node.run_all({"writes": program(WRITES, options)})["writes"]
        assert (result.status, result.stdout) == ("succeeded", "200 1\n"), result.stderr
        assert result.shape is not None
        assert result.shape.scratch_disk


def test_a_template_made_by_hand_serves_the_next_run_and_goes_when_told(live_node: LiveNode) -> None:
    made = live_node.mayfly("template", "build", "--mem", "160", "--json")
    assert made.returncode == 0, made.stderr
    key = json.loads(made.stdout)["key"]
    assert key[:12] in live_node.mayfly("template", "ls").stdout.decode()
    assert live_node.mayfly("run", "--mem", "160", "-c", "print(1)").stdout == b"1\n"
    sizes = json.loads(live_node.mayfly("ps", "--json").stdout)["pool"]["sizes"]
    assert [size["template"] for size in sizes if size["mem_mib"] == 160] == [True]
    _a_sandbox_is_made_from(live_node, key)
    assert live_node.mayfly("template", "rm", key[:10]).returncode == 0
    assert key[:12] not in live_node.mayfly("template", "ls").stdout.decode()
    assert live_node.mayfly("template", "rm", key[:10]).returncode == 125


def _a_sandbox_is_made_from(live_node: LiveNode, key: str) -> None:
    made = live_node.mayfly("shell", "--detach", "--template", key[:8])
    assert made.returncode == 0, made.stderr
    sandbox = made.stdout.decode().strip()
    shown = live_node.mayfly("exec", sandbox, "grep", "MemTotal", "/proc/meminfo").stdout.split()
    (info,) = [one for one in json.loads(live_node.mayfly("ps", "--json").stdout)["sandboxes"] if one["id"] == sandbox]
    assert live_node.mayfly("kill", sandbox).returncode == 0
    assert (info["template"], info["limits"]["mem_mib"]) == (key, 160)
    assert int(shown[1]) < 160 << 10
    refused = live_node.mayfly("shell", "--detach", "--template", key[:8], "--mem", "256")
    assert (refused.returncode, b"limits.mem_mib is 256, but template" in refused.stderr) == (2, True)


def test_an_image_that_is_not_there_is_wrong_use(live_node: LiveNode) -> None:
    ran = live_node.mayfly("run", "--image", "nothing-like-it", "-c", "print(1)")
    assert ran.returncode == 2
    assert b"--image must be one of" in ran.stderr
