"""First process of the emulated host: mounts, network, KVM, then the node; power off when the node has ended.

Runs as a script from the code drive, with the standard library only. Console lines that begin with `mayfly:` are read
by the supervisor outside; a line `down` on the console asks for an orderly end.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import traceback
from pathlib import Path

__all__ = ["main"]

_CODE = Path(__file__).parent
_STATE = "/var/lib/mayfly"
_LIBC = ctypes.CDLL(None, use_errno=True)
_MS_NOATIME = 1024
_EBUSY = 16
_RB_POWER_OFF = 0x4321FEDC
_NODE_STARTS = 3
_HELD_GROUP = "/sys/fs/cgroup/held"
_KVM_CREATE_VM = 0xAE01
_KVM_CREATE_IRQCHIP = 0xAE60
_KVM_CREATE_VCPU = 0xAE41
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def _say(text: str) -> None:
    os.write(1, f"mayfly: {text}\n".encode())


def _mount(source: str, target: str, kind: str, flags: int = 0, options: str = "") -> None:
    if _LIBC.mount(source.encode(), target.encode(), kind.encode(), flags, options.encode()) != 0:
        number = ctypes.get_errno()
        if number != _EBUSY:  # mounted already
            raise OSError(number, f"mount {kind} on {target}: {os.strerror(number)}")


def _prepare() -> None:
    _mount("/dev/vdb", _STATE, "ext4", _MS_NOATIME)
    _mount("cgroup2", "/sys/fs/cgroup", "cgroup2")
    with open("/sys/fs/cgroup/cgroup.subtree_control", "wb", buffering=0) as file:  # noqa: PTH123 - one write
        file.write(b"+memory +pids +cpu")
    _mount("tmpfs", "/tmp", "tmpfs", 0, "size=256m,mode=1777")  # noqa: S108 - this machine's own
    for command in (
        ("modprobe", "-a", "virtio_net", "kvm-amd"),
        ("ip", "link", "set", "lo", "up"),
        ("ip", "link", "set", "eth0", "up"),
        ("ip", "addr", "add", "10.0.2.15/24", "dev", "eth0"),
    ):
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
        if done.returncode:
            _say(f"{' '.join(command)} did not work: {done.stderr[-300:].decode('utf-8', 'replace').strip()}")


def _pin_kvm() -> list[int]:
    """Hold one machine that never runs, for as long as this host is up; see `_settle_kernel`."""
    try:
        kvm = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
        machine = fcntl.ioctl(kvm, _KVM_CREATE_VM, 0)
        fcntl.ioctl(machine, _KVM_CREATE_IRQCHIP)
        return [kvm, machine, fcntl.ioctl(machine, _KVM_CREATE_VCPU, 0)]
    except OSError as error:
        _say(f"KVM does not work here: {error.strerror}")
        return []


def _settle_kernel() -> list[int]:
    """Let the kernel rewrite its own code now, and give it no reason to do so later.

    The first KVM machine and the last, a machine's processors, the first memory control group and the last, and the
    first processor quota and the last each make Linux rewrite code that is in use, which costs an emulated processor
    its translations of that code. So one machine and one group with a quota are held for as long as this host is up.
    Returns what holds the machine.
    """
    os.makedirs(_HELD_GROUP, exist_ok=True)  # noqa: PTH103 - not a file
    with open(f"{_HELD_GROUP}/cpu.max", "wb", buffering=0) as file:  # noqa: PTH123 - one write
        file.write(b"100000 100000")
    return _pin_kvm()


def _run_node() -> None:
    sys.path[:0] = [str(_CODE / "src"), "/opt/mayfly/site"]
    os.environ.update(MAYFLY_HOME=_STATE, HOME="/root", PYTHONPATH=os.pathsep.join(sys.path[:2]))
    config = json.loads((_CODE / "config.json").read_bytes())
    if "bench" in config:
        from mayfly.bench.inside import measure_inside

        measure_inside(_STATE, config["bench"], _say)
        return
    from mayfly.server.inside import serve_inside

    serve_inside(str(_CODE / "config.json"), lambda: _say("ready"))


def _child() -> None:
    try:
        _run_node()
    except BaseException as error:  # noqa: BLE001 - nobody is above to tell
        traceback.print_exc()
        _say(f"failed {str(error)[:1000]}")
        os._exit(1)
    os._exit(0)


def _listen_for_down(node: list[int]) -> None:
    for line in sys.stdin:
        if line.strip() == "down":
            os.kill(node[0], signal.SIGTERM)


def _keep_compiled() -> None:
    """Let the compiled form of our own code outlive this start; all else was compiled when the image was made."""
    source = _CODE / "src"
    for directory in [path for path in source.rglob("*") if path.is_dir()]:
        kept = Path(_STATE, "pycache", directory.relative_to(source))
        kept.mkdir(parents=True, exist_ok=True)
        (directory / "__pycache__").symlink_to(kept)


def _start_node(node: list[int]) -> None:
    _say("starting the node")
    node[0] = os.fork()
    if node[0] == 0:
        _child()


def _node_died(node: list[int]) -> bool:
    """Wait for the node's end; True when a signal ended it, which is no end that it chose."""
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == node[0]:
            return os.WIFSIGNALED(status)


def main() -> None:
    """Everything, and never return: the machine is switched off at the end."""
    os.environ["PATH"] = _PATH
    try:
        _prepare()
        _keep_compiled()
        pins = _settle_kernel()
        node = [os.getpid()]
        _start_node(node)
        threading.Thread(target=_listen_for_down, args=(node,), daemon=True).start()
        for _ in range(_NODE_STARTS):
            if not _node_died(node):
                break
            _start_node(node)
        for descriptor in pins:
            os.close(descriptor)
    except BaseException as error:  # noqa: BLE001 - nobody is above to tell
        _say(f"failed {str(error)[:1000]}")
    finally:
        _say("power off")
        os.sync()
        _LIBC.umount2(_STATE.encode(), 0)
        _LIBC.reboot(_RB_POWER_OFF)


if __name__ == "__main__":
    main()
