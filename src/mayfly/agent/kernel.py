"""System calls that the standard library does not wrap, through the C library."""

from __future__ import annotations

import os

from mayfly.agent import libc

__all__ = [
    "IN_FLAGS",
    "MNT_DETACH",
    "MS_BIND",
    "MS_MOVE",
    "MS_NODEV",
    "MS_NOEXEC",
    "MS_NOSUID",
    "MS_RDONLY",
    "MS_REMOUNT",
    "become_subreaper",
    "die_with_parent",
    "inotify",
    "inotify_add",
    "inotify_remove",
    "mount",
    "no_new_privileges",
    "pivot_root",
    "set_file_user",
    "unmount",
]

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_MOVE = 8192
MNT_DETACH = 2
IN_FLAGS = {
    "modify": 0x2,
    "attrib": 0x4,
    "moved_from": 0x40,
    "moved_to": 0x80,
    "create": 0x100,
    "delete": 0x200,
    "delete_self": 0x400,
    "overflow": 0x4000,
    "ignored": 0x8000,
    "onlydir": 0x1000000,
    "isdir": 0x40000000,
}
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_PIVOT_ROOT_X86_64 = 155

_mount = libc.function("mount")
_umount2 = libc.function("umount2")
_syscall = libc.function("syscall")
_prctl = libc.function("prctl")
_setfsuid = libc.function("setfsuid")
_setfsgid = libc.function("setfsgid")


def _check(result: int, what: str) -> None:
    if result != 0:
        number = libc.errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """Attaches a file system, or moves or binds one. Raises OSError."""
    result = _mount(
        source.encode(), target.encode(), kind.encode(), libc.unsigned_long(flags), options.encode() or None
    )
    _check(result, f"mount {source} on {target}")


def unmount(target: str, flags: int = 0) -> None:
    """umount2(2). Raises OSError."""
    _check(_umount2(target.encode(), flags), f"unmount {target}")


def pivot_root(new_root: str, put_old: str) -> None:
    """Makes `new_root` the root and puts the old one at `put_old`. Raises OSError."""
    _check(_syscall(_PIVOT_ROOT_X86_64, new_root.encode(), put_old.encode()), "pivot_root")


def no_new_privileges() -> None:
    """From now on no program that this process starts gains rights by a setuid bit."""
    _check(_prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "PR_SET_NO_NEW_PRIVS")


def become_subreaper() -> None:
    """Orphans below this process become its children, as they do for PID 1."""
    _check(_prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "PR_SET_CHILD_SUBREAPER")


def die_with_parent(signal_number: int) -> None:
    """The kernel sends this process a signal when its parent ends."""
    _check(_prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0), "PR_SET_PDEATHSIG")


def set_file_user(uid: int, gid: int) -> None:
    """Whose rights hold for files from now on; the process stays who it is. Both fail silently in the kernel."""
    if uid == 0:
        _setfsuid(uid)
        _setfsgid(gid)
    else:
        _setfsgid(gid)
        _setfsuid(uid)


def inotify() -> int:
    """A descriptor that events of watches come from. Raises OSError."""
    fd: int = libc.function("inotify_init1")(os.O_NONBLOCK | os.O_CLOEXEC)
    _check(min(fd, 0), "inotify_init1")
    return fd


def inotify_add(fd: int, path: str, mask: int) -> int:
    """Watches a path; the number of the watch. Raises OSError."""
    watch: int = libc.function("inotify_add_watch")(fd, os.fsencode(path), libc.unsigned_long(mask))
    if watch < 0:
        number = libc.errno()
        raise OSError(number, os.strerror(number))
    return watch


def inotify_remove(fd: int, watch: int) -> None:
    """Ends a watch; one that has ended already is no error."""
    libc.function("inotify_rm_watch")(fd, watch)
