"""The duties of PID 1: file systems, a writable root, the loopback interface, cgroups.

The kernel has mounted the image read-only on `/` and devtmpfs on `/dev`; the image's first script has mounted
the agent's drive on `/mayfly`. All that programs write goes to one tmpfs with one size and one number of files:
the writable layer of `/`, `/tmp`, `/run` and `/dev/shm` share it. A machine with a scratch disk has the first two on
that instead.
"""

from __future__ import annotations

import fcntl
import os
import struct

from mayfly.agent import kernel
from mayfly.agent.bare import socket
from mayfly.agent.loop import log

__all__ = ["CGROUP_PARENT", "prepare_guest"]

_CGROUP_ROOT = "/sys/fs/cgroup"
CGROUP_PARENT = f"{_CGROUP_ROOT}/program"
_SCRATCH = "/run"
_DISK = "/dev/vdc"
_RESERVE_BYTES = 40 << 20
_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1
_SAFE = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
_SYSCTLS = {
    "debug/exception-trace": "0",  # a program that crashes in a loop would fill the console
    "kernel/dmesg_restrict": "1",
    "kernel/kptr_restrict": "2",
    "kernel/perf_event_paranoid": "3",
    "kernel/unprivileged_bpf_disabled": "1",
    "kernel/yama/ptrace_scope": "1",
    "user/max_user_namespaces": "0",
    "vm/overcommit_memory": "0",
}


def prepare_guest(uid: int) -> None:
    """Everything before the first program. Raises OSError when a part that containment needs fails."""
    _make_root_writable()
    _mount_kernel_file_systems()
    os.makedirs("/home/user", 0o755, exist_ok=True)
    os.chown("/home/user", uid, uid)
    _prepare_cgroups()
    _write("/proc/self/oom_score_adj", "-1000")
    os.setpriority(os.PRIO_PROCESS, 0, -20)
    for name, value in _SYSCTLS.items():
        try:
            _write(f"/proc/sys/{name}", value)
        except OSError:
            continue  # this kernel is built without it
    _loopback_up()


def _make_root_writable() -> None:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    size = total // 2
    files = max(size // 8192, 4096)  # an empty file takes about 1 KiB of kernel memory
    kernel.mount("scratch", _SCRATCH, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, f"size={size},nr_inodes={files}")
    disk = _mount_disk() or _SCRATCH
    for path, mode in (
        (f"{disk}/upper", 0o755),
        (f"{disk}/work", 0o755),
        (f"{disk}/tmp", 0o1777),  # noqa: S108  made here
        (f"{_SCRATCH}/root", 0o755),
        (f"{_SCRATCH}/run", 0o755),
        (f"{_SCRATCH}/shm", 0o1777),
    ):
        os.mkdir(path)
        os.chmod(path, mode)
    root = f"{_SCRATCH}/root"
    layers = f"lowerdir=/,upperdir={disk}/upper,workdir={disk}/work"
    kernel.mount("root", root, "overlay", kernel.MS_NOSUID | kernel.MS_NODEV, layers)
    kernel.mount(f"{_SCRATCH}/run", f"{root}/run", flags=kernel.MS_BIND)
    kernel.mount(f"{disk}/tmp", f"{root}/tmp", flags=kernel.MS_BIND)  # noqa: S108  made here
    for path in ("/dev", "/mayfly"):
        kernel.mount(path, root + path, flags=kernel.MS_MOVE)
    shared_memory = f"{root}/dev/shm"  # noqa: S108  a mount point, made here
    os.mkdir(shared_memory)
    kernel.mount(f"{_SCRATCH}/shm", shared_memory, flags=kernel.MS_BIND)
    os.chdir(root)
    kernel.pivot_root(".", ".")
    kernel.unmount(".", kernel.MNT_DETACH)
    os.chdir("/")


def _mount_disk() -> str | None:
    """The scratch disk, where the machine has one: it takes the place of memory for all but /run and /dev/shm."""
    if not os.path.exists(_DISK):
        return None
    disk = f"{_SCRATCH}/disk"
    os.mkdir(disk)
    # without filling its tables with zeros in the background: it is new, and the host keeps what is written
    kernel.mount(_DISK, disk, "ext4", kernel.MS_NOSUID | kernel.MS_NODEV, "noinit_itable")
    return disk


def _mount_kernel_file_systems() -> None:
    kernel.mount("proc", "/proc", "proc", _SAFE, "hidepid=2")
    kernel.mount("sysfs", "/sys", "sysfs", _SAFE | kernel.MS_RDONLY)
    os.mkdir("/dev/pts")
    kernel.mount("devpts", "/dev/pts", "devpts", kernel.MS_NOSUID | kernel.MS_NOEXEC, "mode=0620,ptmxmode=0666")
    for name, target in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
        os.symlink(f"/proc/self/fd{target}", f"/dev/{name}")
    kernel.mount("cgroup2", _CGROUP_ROOT, "cgroup2", _SAFE)


def _prepare_cgroups() -> None:
    """The agent in a leaf with the most weight; programs below one parent that cannot take all memory."""
    os.mkdir(f"{_CGROUP_ROOT}/agent")
    _write(f"{_CGROUP_ROOT}/agent/cgroup.procs", "0")
    os.mkdir(CGROUP_PARENT)
    for controller in ("cpu", "memory", "pids"):
        try:
            _write(f"{_CGROUP_ROOT}/cgroup.subtree_control", f"+{controller}")
            _write(f"{CGROUP_PARENT}/cgroup.subtree_control", f"+{controller}")
        except OSError as error:
            log(f"no {controller} controller: {error}")
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for path, value in (
        (f"{_CGROUP_ROOT}/agent/cpu.weight", "10000"),
        (f"{CGROUP_PARENT}/memory.max", str(max(total - _RESERVE_BYTES, 16 << 20))),
    ):
        try:
            _write(path, value)
        except OSError as error:
            log(f"{path}: {error}")


def _loopback_up() -> None:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    request = struct.pack("16sH14x", b"lo", 0)
    flags = struct.unpack("16sH14x", fcntl.ioctl(sock.fileno(), _SIOCGIFFLAGS, request))[1]
    fcntl.ioctl(sock.fileno(), _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | _IFF_UP))
    sock.close()


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
