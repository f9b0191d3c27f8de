"""What holds one program and everything it starts: counts it, limits it, kills it whole.

In the guest that is a cgroup (version 2). As a plain process, for tests, there is none to use; then the process
tree under the agent stands in, looked at from /proc: fit for honest programs and the usual escapes (double fork,
setsid), not for a hostile one. Both have the same methods.
"""

from __future__ import annotations

import os
import time

from mayfly.agent.bare import signal

__all__ = ["CgroupEnclosure", "TreeEnclosure", "kill_descendants"]

_TICK_US = 1_000_000 // os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def _read(path: str) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 65536).decode("utf-8", "replace")
    finally:
        os.close(fd)


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _keyed(path: str, key: str) -> int:
    """The number after `key` in a `key value` file; 0 when it is not there."""
    for line in _read(path).splitlines():
        name, _, value = line.partition(" ")
        if name == key:
            return int(value)
    return 0


class CgroupEnclosure:
    """A cgroup below `parent`, made for one program."""

    enforces_memory = True

    def __init__(self, parent: str, name: str) -> None:
        self.path = f"{parent}/{name}"
        os.mkdir(self.path, 0o755)
        self._set("memory.oom.group", "1")
        self._set("memory.swap.max", "0")
        self._cpu_base_us = 0

    def _set(self, name: str, value: str) -> bool:
        try:
            _write(f"{self.path}/{name}", value)
        except FileNotFoundError:
            return False  # that controller is not in this kernel; the host bounds the VM all the same
        return True

    def join(self) -> None:
        """Moves the calling process in; for a child before it runs anything."""
        _write(f"{self.path}/cgroup.procs", "0")

    def adopt(self, _pid: int) -> None:
        """Names the program's first process; a cgroup knows by itself."""

    def limit(self, *, pids: int, mem_bytes: int) -> None:
        """Sets the limits and starts counting CPU time from here."""
        self._set("pids.max", str(pids))
        self._set("memory.max", str(mem_bytes))
        self._cpu_base_us = self._cpu_total_us()

    def _cpu_total_us(self) -> int:
        return _keyed(f"{self.path}/cpu.stat", "usage_usec")

    def cpu_us(self) -> int:
        """CPU time used since `limit`, in microseconds."""
        return self._cpu_total_us() - self._cpu_base_us

    def mem_peak_bytes(self) -> int:
        """Largest memory use so far, page cache and tmpfs included; 0 when the kernel does not say."""
        try:
            return int(_read(f"{self.path}/memory.peak"))
        except OSError:
            return 0

    def ran_out_of_memory(self) -> bool:
        """Whether the kernel killed something in here for want of memory."""
        try:
            return _keyed(f"{self.path}/memory.events", "oom_kill") > 0
        except OSError:
            return False

    def over_memory(self) -> bool:
        """Whether the watcher must step in; never, the kernel does."""
        return False

    def kill(self) -> None:
        """SIGKILL to everything inside, also to what is being forked right now."""
        if not self._set("cgroup.kill", "1"):
            for pid in _read(f"{self.path}/cgroup.procs").split():
                _kill(int(pid))

    def empty(self) -> bool:
        """Whether nothing lives in here any more."""
        return _keyed(f"{self.path}/cgroup.events", "populated") == 0

    def remove(self) -> None:
        """Removes the cgroup, and those the program may have made inside."""
        for path, _, _ in os.walk(self.path, topdown=False):
            try:
                os.rmdir(path)
            except OSError:
                pass  # something in D state still sits there; it ends with the VM


class TreeEnclosure:
    """The processes that descend from one child of the agent, followed through /proc."""

    enforces_memory = False
    _alive: list[TreeEnclosure] = []  # noqa: RUF012  shared on purpose: an orphan must be given to one of them

    def __init__(self) -> None:
        self.pid = 0
        self.started = False
        self._mem_bytes = 0
        self._peak_bytes = 0
        self._cpu_base_us = 0
        self._cpu_seen_us = 0
        self._known: set[tuple[int, int]] = set()
        self._alive.append(self)

    def join(self) -> None:
        """Nothing to join."""

    def adopt(self, pid: int) -> None:
        """Names the program's first process."""
        self.pid = pid

    def limit(self, *, pids: int, mem_bytes: int) -> None:
        """Starts counting; the number of processes is bounded by RLIMIT_NPROC instead."""
        del pids
        self.started = True
        self._mem_bytes = mem_bytes
        self._look()
        self._cpu_base_us = self._cpu_seen_us

    def _look(self) -> list[int]:
        """The members alive now; refreshes the counts."""
        mine = []
        cpu_us = rss = 0
        for pid, start, owner, stat in _descendants({e.pid: e for e in self._alive}):
            orphan_is_mine = owner is None and ((pid, start) in self._known or sum(e.started for e in self._alive) == 1)
            if owner is self or (orphan_is_mine and self.started):
                self._known.add((pid, start))
                cpu_us += sum(int(ticks) for ticks in stat[11:15]) * _TICK_US
                rss += int(stat[21]) * _PAGE_BYTES
                if stat[0] != "Z":
                    mine.append(pid)
        self._cpu_seen_us = max(self._cpu_seen_us, cpu_us)
        self._peak_bytes = max(self._peak_bytes, rss)
        return mine

    def cpu_us(self) -> int:
        """CPU time of the members, as last seen, since `limit`, in microseconds."""
        self._look()
        return self._cpu_seen_us - self._cpu_base_us

    def mem_peak_bytes(self) -> int:
        """Largest resident size that was seen, shared pages counted for each process."""
        return self._peak_bytes

    def ran_out_of_memory(self) -> bool:
        """Whether the members were seen above their limit."""
        return self._mem_bytes > 0 and self._peak_bytes > self._mem_bytes

    def over_memory(self) -> bool:
        """Whether the watcher must kill for memory."""
        self._look()
        return self.ran_out_of_memory()

    def kill(self) -> None:
        """SIGKILL to every member."""
        for pid in self._look():
            _kill(pid)

    def empty(self) -> bool:
        """Whether no member lives; kills those that were forked meanwhile."""
        members = self._look()
        for pid in members:
            _kill(pid)
        return not members

    def remove(self) -> None:
        """Forgets the program."""
        if self in self._alive:
            self._alive.remove(self)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _descendants(
    owners: dict[int, TreeEnclosure],
) -> list[tuple[int, int, TreeEnclosure | None, list[str]]]:
    """All processes below this one: pid, start time, the enclosure above it, and its stat fields from `state`."""
    found = []
    pending: list[tuple[int, TreeEnclosure | None]] = [(pid, None) for pid in _children(os.getpid())]
    while pending:
        pid, above = pending.pop()
        owner = owners.get(pid, above)
        try:
            stat = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
        except OSError:
            continue  # gone between two looks
        found.append((pid, int(stat[19]), owner, stat))
        pending.extend((child, owner) for child in _children(pid))
    return found


def _children(pid: int) -> list[int]:
    children: list[int] = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            children += [int(child) for child in _read(f"/proc/{pid}/task/{task}/children").split()]
    except OSError:
        pass  # gone between two looks
    return children


def kill_descendants(*, patience_s: float) -> None:
    """SIGKILL to everything below this process, and reaps it; needs it to be PID 1 or a subreaper."""
    until = time.monotonic() + patience_s
    while time.monotonic() < until:
        for pid, *_ in _descendants({}):
            _kill(pid)
        try:
            while os.waitpid(-1, os.WNOHANG)[0] != 0:
                pass
        except ChildProcessError:
            return
        time.sleep(0.002)
