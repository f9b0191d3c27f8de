"""What the sandbox uses now."""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mayfly.agent.server import Server

__all__ = ["metrics"]

_TICK_MS = 1000 / os.sysconf("SC_CLK_TCK")


def metrics(server: Server) -> dict[str, object]:
    """The fields of the operation's answer; 0 for what the kernel does not say."""
    memory = _memory()
    total = memory.get("MemTotal", 0)
    disk = os.statvfs(server.settings.home)
    return {
        "cpus": os.cpu_count() or 0,
        "cpu_ms": _cpu_ms(),
        "load_1m": os.getloadavg()[0],
        "mem_total_bytes": total,
        "mem_used_bytes": max(total - memory.get("MemAvailable", total), 0),
        "disk_total_bytes": disk.f_blocks * disk.f_frsize,
        "disk_used_bytes": (disk.f_blocks - disk.f_bfree) * disk.f_frsize,
        "processes": sum(name.isdecimal() for name in os.listdir("/proc")),
        "uptime_s": round(time.clock_gettime(time.CLOCK_BOOTTIME), 3),
    }


def _lines(path: str) -> list[list[str]]:
    try:
        with open(path, "rb") as file:
            return [line.decode("ascii", "replace").split() for line in file.read(65536).splitlines()]
    except OSError:
        return []


def _memory() -> dict[str, int]:
    return {
        line[0].rstrip(":"): int(line[1]) * 1024
        for line in _lines("/proc/meminfo")
        if len(line) > 1 and line[1].isdecimal()
    }


def _cpu_ms() -> float:
    """User, nice and system time of all processors since the start."""
    for line in _lines("/proc/stat"):
        if line and line[0] == "cpu":
            return round(sum(int(ticks) for ticks in line[1:4]) * _TICK_MS, 3)
    return 0.0
