"""The rules that Firecracker's production guide has for hosts: what this machine does, and how to mend it.

Everything is read from below one root, so that tests can make machines up; nothing is changed.
"""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING, Literal

import msgspec

from mayfly.host.cgroups import detect_cgroups

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["Check", "HostNeeds", "host_rules"]

_READ_MAX_BYTES = 65536
_PIDS_A_MACHINE = 32
_FILES_A_MACHINE = 8
_FILES_OF_THE_NODE = 1024
_METADATA = 0xA9FEA9FE


class Check(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing looked at. `hint` says how to mend it."""

    name: str
    status: Literal["ok", "warn", "fail"]
    detail: str
    hint: str | None = None


class HostNeeds(msgspec.Struct, frozen=True, kw_only=True):
    """What a node's settings ask of its host. `machines` are those at once, waiting ones included."""

    uid_base: int = 900_000
    uid_count: int = 4096
    machines: int = 16
    guest_console: bool = False
    open_files: int = -1
    """The hard limit on open files; -1 asks the kernel."""


def host_rules(root: Path, needs: HostNeeds) -> Iterator[Check]:
    """A row for each rule, from the `proc`, `sys` and `etc` below `root`."""
    yield _seccomp(root)
    yield _uids(root, needs)
    yield _serial(needs)
    yield _swap(root)
    yield _same_page_merging(root)
    yield _smt(root)
    yield _microcode(root)
    yield _watchdog()
    yield _metadata(root)
    yield _control_groups(root)
    yield _kvm_parameters(root)
    yield from _limits(root, needs)


def _rule(name: str, problem: str | None, good: str, hint: str, *, bad: Literal["warn", "fail"] = "warn") -> Check:
    if problem is None:
        return Check(name=name, status="ok", detail=good)
    return Check(name=name, status=bad, detail=problem, hint=hint)


def _seccomp(root: Path) -> Check:
    actions = _read(root / "proc/sys/kernel/seccomp/actions_avail").split()
    problem = None if {"allow", "trap"} <= set(actions) else "this kernel cannot filter system calls"
    hint = "use a kernel with CONFIG_SECCOMP_FILTER"
    return _rule("seccomp", problem, "Firecracker's own filters, which are never switched off", hint, bad="fail")


def _uids(root: Path, needs: HostNeeds) -> Check:
    wanted = range(needs.uid_base, needs.uid_base + needs.uid_count)
    taken = [
        f"{name} ({uid})"
        for file in ("passwd", "group")
        for name, uid in _accounts(root / "etc" / file)
        if uid in wanted
    ]
    for file in ("subuid", "subgid"):
        for line in _read(root / "etc" / file).splitlines():
            name, *numbers = line.split(":")
            if len(numbers) == 2 and all(number.isdecimal() for number in numbers):
                start, count = map(int, numbers)
                if start < wanted.stop and wanted.start < start + count:
                    taken.append(f"{name}'s {file} {start} to {start + count - 1}")
    shown = f"{wanted.start} to {wanted.stop - 1}"
    problem = f"{shown} are not free: {', '.join(taken[:5])}" if taken else None
    return _rule("user ids", problem, f"{shown} are nobody else's", "choose others with uid_base and uid_count")


def _accounts(path: Path) -> Iterator[tuple[str, int]]:
    for line in _read(path).splitlines():
        fields = line.split(":")
        if len(fields) > 2 and fields[2].isdecimal():
            yield fields[0], int(fields[2])


def _serial(needs: HostNeeds) -> Check:
    problem = "on: a guest can fill it" if needs.guest_console else None
    return _rule("serial console", problem, "off in guests", "unset MAYFLY_GUEST_CONSOLE")


def _swap(root: Path) -> Check:
    devices = [line.split()[0] for line in _read(root / "proc/swaps").splitlines()[1:] if line.split()]
    problem = f"on ({', '.join(devices[:4])}): guests' memory can reach a disk" if devices else None
    return _rule("swap", problem, "off", "swapoff -a, or encrypt it")


def _same_page_merging(root: Path) -> Check:
    on = _read(root / "sys/kernel/mm/ksm/run").strip() not in ("", "0")
    problem = "on: guests can spy on each other" if on else None
    return _rule("same-page merging", problem, "off", "echo 0 >/sys/kernel/mm/ksm/run")


def _smt(root: Path) -> Check:
    on = _read(root / "sys/devices/system/cpu/smt/active").strip() == "1"
    problem = "on: tenants share cores' secrets" if on else None
    return _rule("SMT", problem, "off", "boot with nosmt where tenants distrust each other")


def _microcode(root: Path) -> Check:
    version = next(
        (line.partition(":")[2].strip() for line in _read(root / "proc/cpuinfo").splitlines() if "microcode" in line),
        "unknown",
    )
    open_holes = []
    directory = root / "sys/devices/system/cpu/vulnerabilities"
    if directory.is_dir():
        open_holes = [path.name for path in sorted(directory.iterdir()) if _read(path).startswith("Vulnerable")]
    problem = f"{version}, open: {', '.join(open_holes)}" if open_holes else None
    good = f"{version}, no vulnerability that the kernel knows is open"
    hint = "install current microcode and a current kernel; boot without mitigations=off"
    return _rule("microcode", problem, good, hint)


def _watchdog() -> Check:
    """Hung VMMs are the node's own work; what is said here is who does it."""
    detail = "the node kills machines at their deadlines, its janitor those of a node that was killed"
    return Check(name="watchdog", status="ok", detail=detail)


def _metadata(root: Path) -> Check:
    reached = any(_covers(line.split()) for line in _read(root / "proc/net/route").splitlines()[1:])
    host = "this host has a route to it" if reached else "this host has no route to it either"
    detail = f"169.254.169.254 is out of reach of machines, which have no network device; {host}"
    return Check(name="metadata address", status="ok", detail=detail)


def _covers(fields: list[str]) -> bool:
    """Whether a line of the routing table, whose numbers are in the host's byte order, leads to the address."""
    try:
        network, mask = (int.from_bytes(bytes.fromhex(fields[at]), "little") for at in (1, 7))
    except (ValueError, IndexError):
        return False
    return _METADATA & mask == network


def _control_groups(root: Path) -> Check:
    mounts = root / "proc/self/mounts"
    layout = detect_cgroups(mounts) if mounts.exists() else None
    name, hint = "control groups", "mount cgroup2, or boot with systemd.unified_cgroup_hierarchy=1"
    if layout is None or layout.version == 0:
        return _rule(name, "no hierarchy with memory and pids: the host's own limits are not in force", "", hint)
    hybrid = layout.version == 1 and " cgroup2 " in _read(mounts)
    kind = f"version {layout.version}{', hybrid' if hybrid else ''}"
    if frozen := _read_only(_read(mounts), layout.mounts):
        return _rule(name, f"{kind}, mounted read-only at {frozen}: no machine can start", "", hint, bad="fail")
    if not layout.has_cpu:
        return _rule(name, f"{kind}, without the cpu controller: processor time is not shared out", "", hint)
    return Check(name=name, status="ok", detail=f"{kind}, with memory, pids and cpu")


def _read_only(table: str, used: Mapping[str, Path]) -> str | None:
    places = {str(path) for path in used.values()}
    for line in table.splitlines():
        fields = line.split()
        if len(fields) > 3 and fields[1] in places and "ro" in fields[3].split(","):
            return fields[1]
    return None


_RISKY = {
    "kvm_intel/parameters/nested": ("Y1", "nested virtualisation is on"),
    "kvm_amd/parameters/nested": ("Y1", "nested virtualisation is on"),
    "kvm/parameters/ignore_msrs": ("Y1", "unknown model-specific registers are ignored"),
    "kvm/parameters/enable_vmware_backdoor": ("Y1", "the VMware backdoor is on"),
}


def _kvm_parameters(root: Path) -> Check:
    found = [
        said
        for name, (bad, said) in _RISKY.items()
        if (value := _read(root / "sys/module" / name).strip()) and value[0] in bad
    ]
    problem = "; ".join(dict.fromkeys(found)) or None
    hint = "set these module parameters to 0: guests need none of it, and each is more for them to attack"
    return _rule("KVM parameters", problem, "nothing that guests have no need of", hint)


def _limits(root: Path, needs: HostNeeds) -> Iterator[Check]:
    pids = min(_number(root / "proc/sys/kernel/pid_max"), _number(root / "proc/sys/kernel/threads-max"))
    wanted = needs.machines * _PIDS_A_MACHINE
    problem = f"{pids}, and {needs.machines} machines may want {wanted}" if pids < 2 * wanted else None
    yield _rule("process limit", problem, f"{pids}", f"sysctl kernel.pid_max={max(4 * wanted, 131072)}")
    files = needs.open_files if needs.open_files >= 0 else resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    files = min(_FOREVER if files == resource.RLIM_INFINITY else files, _number(root / "proc/sys/fs/file-max"))
    wanted = _FILES_OF_THE_NODE + needs.machines * _FILES_A_MACHINE
    problem = f"{files}, and a node with {needs.machines} machines wants {wanted}" if files < wanted else None
    yield _rule("open files limit", problem, f"{files}", f"ulimit -n {max(wanted, 65536)}, or LimitNOFILE= in the unit")


_FOREVER = 1 << 62


def _number(path: Path) -> int:
    text = _read(path).strip()
    return int(text) if text.isdecimal() else _FOREVER


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_READ_MAX_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
