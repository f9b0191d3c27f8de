"""The host rules on machines that are made up of files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mayfly.node.host_rules import HostNeeds, host_rules

if TYPE_CHECKING:
    from pathlib import Path

    from mayfly.node.host_rules import Check

GOOD = {
    "proc/sys/kernel/seccomp/actions_avail": "kill_process kill_thread trap errno user_notif trace log allow\n",
    "proc/swaps": "Filename\tType\tSize\tUsed\tPriority\n",
    "proc/cpuinfo": "processor\t: 0\nmicrocode\t: 0x2007006\n",
    "proc/net/route": "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n",
    "proc/self/mounts": "cgroup2 {root}/cg cgroup2 rw,nosuid 0 0\n",
    "proc/sys/kernel/pid_max": "4194304\n",
    "proc/sys/kernel/threads-max": "385000\n",
    "proc/sys/fs/file-max": "9223372036854775807\n",
    "cg/cgroup.controllers": "cpuset cpu io memory pids\n",
    "sys/kernel/mm/ksm/run": "0\n",
    "sys/devices/system/cpu/smt/active": "0\n",
    "sys/devices/system/cpu/vulnerabilities/spectre_v2": "Mitigation: Enhanced IBRS\n",
    "sys/module/kvm_intel/parameters/nested": "N\n",
    "sys/module/kvm/parameters/ignore_msrs": "N\n",
    "etc/passwd": "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534::/:/bin/false\n",
    "etc/group": "root:x:0:\n",
    "etc/subuid": "someone:100000:65536\n",
}
NEEDS = HostNeeds(open_files=524288)


def _machine(root: Path, changes: dict[str, str]) -> dict[str, Check]:
    for name, text in {**GOOD, **changes}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("{root}", str(root)))
    return {check.name: check for check in host_rules(root, NEEDS)}


def test_a_machine_that_keeps_every_rule_is_all_ok(tmp_path: Path) -> None:
    checks = _machine(tmp_path, {})
    assert {check.status for check in checks.values()} == {"ok"}
    assert set(checks) == {
        "seccomp", "user ids", "serial console", "swap", "same-page merging", "SMT", "microcode", "watchdog",
        "metadata address", "control groups", "KVM parameters", "process limit", "open files limit",
    }  # fmt: skip
    assert checks["control groups"].detail == "version 2, with memory, pids and cpu"


_V1 = "".join(f"cgroup {{root}}/{name} cgroup rw,{name} 0 0\n" for name in ("memory", "pids", "cpu"))
BROKEN = {
    "seccomp": ("proc/sys/kernel/seccomp/actions_avail", "", "fail", "cannot filter"),
    "user ids": ("etc/passwd", "vm:x:900007:900007::/:/bin/false\n", "warn", "vm (900007)"),
    "swap": ("proc/swaps", "Filename\n/dev/sda2 partition 1 0 -2\n", "warn", "/dev/sda2"),
    "same-page merging": ("sys/kernel/mm/ksm/run", "1\n", "warn", "spy"),
    "SMT": ("sys/devices/system/cpu/smt/active", "1\n", "warn", "share"),
    "microcode": ("sys/devices/system/cpu/vulnerabilities/mds", "Vulnerable: no microcode\n", "warn", "open: mds"),
    "KVM parameters": ("sys/module/kvm_intel/parameters/nested", "Y\n", "warn", "nested"),
    "process limit": ("proc/sys/kernel/pid_max", "600\n", "warn", "may want 512"),
    "open files limit": ("proc/sys/fs/file-max", "900\n", "warn", "wants 1152"),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_each_broken_rule_is_named_with_how_to_mend_it(tmp_path: Path, rule: str) -> None:
    file, text, status, said = BROKEN[rule]
    check = _machine(tmp_path, {file: text})[rule]
    assert check.status == status
    assert check.hint
    assert said in check.detail


def test_a_range_of_subordinate_ids_that_overlaps_is_named(tmp_path: Path) -> None:
    check = _machine(tmp_path, {"etc/subuid": "me:100000:65536\nyou:899000:65536\n"})["user ids"]
    assert check.status == "warn"
    assert "you's subuid 899000 to 964535" in check.detail


@pytest.mark.parametrize(
    ("mounts", "controllers", "status", "said"),
    [
        (_V1, "", "ok", "version 1, with"),
        (_V1 + "cgroup2 {root}/cg cgroup2 rw 0 0\n", "", "ok", "version 1, hybrid"),
        ("cgroup2 {root}/cg cgroup2 ro,nosuid 0 0\n", "cpu memory pids", "fail", "read-only"),
        ("cgroup2 {root}/cg cgroup2 rw 0 0\n", "memory pids", "warn", "without the cpu controller"),
        ("", "", "warn", "no hierarchy"),
    ],
    ids=["version 1", "hybrid", "read-only", "without cpu", "none"],
)
def test_the_layout_of_control_groups_is_told(
    tmp_path: Path, mounts: str, controllers: str, status: str, said: str
) -> None:
    check = _machine(tmp_path, {"proc/self/mounts": mounts, "cg/cgroup.controllers": controllers})["control groups"]
    assert check.status == status
    assert said in check.detail


@pytest.mark.parametrize(
    ("route", "reached"),
    [
        ("eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n", True),
        ("eth0\t0000FEA9\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n", True),
        ("eth0\t0000000A\t00000000\t0001\t0\t0\t0\t000000FF\t0\t0\t0\n", False),
    ],
    ids=["default route", "link-local", "another network"],
)
def test_whether_the_host_reaches_the_metadata_address_is_told(tmp_path: Path, route: str, reached: bool) -> None:
    check = _machine(tmp_path, {"proc/net/route": GOOD["proc/net/route"] + route})["metadata address"]
    assert ("has a route" in check.detail) is reached


def test_a_guest_console_is_warned_about(tmp_path: Path) -> None:
    _machine(tmp_path, {})
    needs = HostNeeds(open_files=524288, guest_console=True)
    checks = {check.name: check for check in host_rules(tmp_path, needs)}
    assert checks["serial console"].status == "warn"


def test_a_machine_that_shows_nothing_is_no_crash(tmp_path: Path) -> None:
    assert {check.name for check in host_rules(tmp_path, NEEDS)} > {"swap", "control groups"}


@given(name=st.sampled_from(sorted(GOOD)), data=st.binary(max_size=300))
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_content_of_the_files_gives_rows(tmp_path: Path, name: str, data: bytes) -> None:
    _machine(tmp_path, {})
    (tmp_path / name).write_bytes(data)
    for check in host_rules(tmp_path, NEEDS):
        assert check.status in {"ok", "warn", "fail"}
        assert check.detail
