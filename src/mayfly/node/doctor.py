"""What this machine offers and what stands in the way, each with what to do about it."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import mayfly
from mayfly.config import load_config
from mayfly.errors import MayflyError
from mayfly.host.emulated import status
from mayfly.host.qemu import default_mem_mib
from mayfly.host.sockets import listens
from mayfly.images.store import Store
from mayfly.node.bringup import kvm_answer
from mayfly.node.host_rules import Check, HostNeeds, host_rules
from mayfly.vmm.versions import check_version, parse_version

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mayfly.host.paths import StatePaths

__all__ = ["SYSTEM_SOCKET", "examine"]

SYSTEM_SOCKET = Path("/run/mayfly/node.sock")
"""Where the system's node listens, as the shipped systemd unit starts it."""

_FREE_WARN_BYTES = 5 * 1024**3
_GIB = 1024**3


def examine(paths: StatePaths) -> list[Check]:
    """Look at everything and change nothing but the remembered KVM answer (a probe boots a guest for seconds)."""
    paths.make()
    checks = [_python(), _system(), _state(paths)]
    for look in (_firecracker, _kernel, _image, _kvm, _emulated_host, _nodes, _rules):
        checks += _guarded(look, paths)
    return checks


def _guarded(look: Callable[[StatePaths], Iterator[Check]], paths: StatePaths) -> list[Check]:
    name = look.__name__.strip("_").replace("_", " ")
    try:
        return list(look(paths))
    except MayflyError as error:
        return [Check(name=name, status="fail", detail=error.message, hint=error.hint)]


def _python() -> Check:
    return Check(name="mayfly", status="ok", detail=f"{mayfly.__version__} on Python {platform.python_version()}")


def _system() -> Check:
    detail = f"{platform.system()} {platform.release()}, {os.cpu_count()} CPUs"
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return Check(name="system", status="fail", detail=detail, hint="Mayfly needs Linux on x86_64")
    return Check(name="system", status="ok", detail=detail)


def _state(paths: StatePaths) -> Check:
    free = shutil.disk_usage(paths.root).free
    detail = f"{paths.root} ({free / _GIB:.1f} GiB free)"
    if free < _FREE_WARN_BYTES:
        return Check(name="state directory", status="warn", detail=detail, hint="5 GiB are needed; set MAYFLY_HOME")
    if os.statvfs(paths.root).f_flag & (os.ST_NODEV | os.ST_NOEXEC) and os.geteuid() == 0:
        hint = "machines' jails need devices and programs there: mount it without nodev and noexec, or set MAYFLY_HOME"
        return Check(name="state directory", status="fail", detail=f"{detail}, mounted nodev or noexec", hint=hint)
    return Check(name="state directory", status="ok", detail=detail)


def _firecracker(paths: StatePaths) -> Iterator[Check]:
    entry = Store(paths).verified("firecracker")
    version = parse_version(entry.meta.get("version", ""))
    warnings = check_version(version)
    yield Check(
        name="firecracker",
        status="warn" if warnings else "ok",
        detail=f"{version} from {entry.meta.get('source', 'unknown')}, {entry.file('firecracker')}",
        hint="; ".join(warnings) or None,
    )


def _kernel(paths: StatePaths) -> Iterator[Check]:
    entry = Store(paths).verified("kernel")
    yield Check(name="guest kernel", status="ok", detail=f"{entry.key[:12]}, {entry.size / 1e6:.0f} MB")


def _image(paths: StatePaths) -> Iterator[Check]:
    entry = Store(paths).verified("image-python")
    yield Check(name="guest image", status="ok", detail=f"python {entry.key[:12]}, {entry.size / 1e6:.0f} MB")


def _kvm(paths: StatePaths) -> Iterator[Check]:
    answer = kvm_answer(paths)
    if answer.usable:
        yield Check(name="kvm", status="ok", detail=answer.reason)
    else:
        hint = "programs run in the emulated host: the same Firecracker, some 15 times slower"
        yield Check(name="kvm", status="warn", detail=answer.reason, hint=hint)


def _emulated_host(paths: StatePaths) -> Iterator[Check]:
    qemu = shutil.which("qemu-system-x86_64")
    if qemu is None:
        yield Check(name="emulated host", status="warn", detail="QEMU is not installed", hint="run `mayfly setup`")
        return
    now = status(paths)
    if now.up:
        stale = "" if now.current else ", runs other code and will be replaced"
        yield Check(name="emulated host", status="ok", detail=f"up for {now.uptime_s:.0f} s, {now.mem_mib} MiB{stale}")
        return
    entry = Store(paths).verified("emulated-host")
    detail = f"down; image {entry.key[:12]}, would have {default_mem_mib()} MiB"
    yield Check(name="emulated host", status="ok", detail=detail)


def _nodes(paths: StatePaths) -> Iterator[Check]:
    for name, socket in (("node", paths.node_socket), ("system node", SYSTEM_SOCKET)):
        answers = socket.exists() and listens(socket)
        detail = f"answers on {socket}" if answers else f"none on {socket}; one is started when it is needed"
        if name == "system node" and not answers:
            detail = f"none on {socket}"
        yield Check(name=name, status="ok", detail=detail)


def _needs(paths: StatePaths) -> HostNeeds:
    """What this state directory's settings ask of the host."""
    config = load_config(os.environ, paths=paths)
    return HostNeeds(
        uid_base=config.uid_base,
        uid_count=config.uid_count,
        machines=config.max_concurrent + config.pool_loaded + config.pool_primed,
        guest_console=os.environ.get("MAYFLY_GUEST_CONSOLE") == "1",
    )


def _rules(paths: StatePaths) -> Iterator[Check]:
    yield from host_rules(Path("/"), _needs(paths))
