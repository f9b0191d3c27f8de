"""ATTACKS: code that reaches for the agent, the kernel, the devices, the clock and the network of its machine."""

from __future__ import annotations

import json
import socket
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import LiveNode, Outcomes

    from mayfly.model import Execution

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600), pytest.mark.usefixtures("settled")]

PROBE = """
import ctypes, errno, json, os, signal, socket, struct, time
libc = ctypes.CDLL(None, use_errno=True)
found = {}

def attempt(name, action):
    try:
        got = action()
        found[name] = "done: %.200r" % (got,)
    except OSError as error:
        found[name] = errno.errorcode.get(error.errno, type(error).__name__)
    except Exception as error:
        found[name] = type(error).__name__

def call(name, number, *arguments):
    def action():
        if libc.syscall(number, *arguments) < 0:
            raise OSError(ctypes.get_errno(), "")
    attempt(name, action)

def opened(path, flags):
    attempt(f"{path} {flags}", lambda: os.open(path, flags))
"""
END = "\nprint(json.dumps(found))\n"

AGENT = """
for number in (9, 15, 11, 6, 19):
    attempt(f"kill {number}", lambda: os.kill(1, number))
for name, request in (("attach", 16), ("seize", 0x4206)):
    call(f"ptrace {name}", 101, request, 1, 0, 0)
call("process_vm_readv", 310, 1, 0, 0, 0, 0, 0)
call("pidfd of the agent, then a signal", 424, libc.syscall(434, 1, 0), 9, 0, 0)
for path in ("/proc/1/environ", "/proc/1/mem", "/proc/1/maps", "/proc/1/fd", "/proc/1/root"):
    opened(path, os.O_RDONLY)
for path in ("/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/program/memory.max", "/sys/fs/cgroup/agent/cgroup.kill"):
    opened(path, os.O_WRONLY)
attempt("write the agent", lambda: open("/mayfly/site/mayfly/agent/server.py", "w"))
call("setuid", 105, 0)
call("setns", 308, os.open("/proc/self/ns/mnt", os.O_RDONLY), 0)
attempt("nice", lambda: os.nice(-5))
attempt("escape the killer", lambda: os.write(os.open("/proc/self/oom_score_adj", os.O_WRONLY), b"-1000"))
"""
KERNEL = """
for path in ("/dev/mem", "/dev/port", "/dev/kmem", "/proc/kcore", "/dev/kmsg", "/dev/vda", "/dev/vdb",
             "/dev/input/event0", "/proc/kallsyms", "/proc/sysrq-trigger",
             "/proc/kpagecount", "/sys/kernel/debug", "/dev/userfaultfd"):
    opened(path, os.O_RDONLY)
for path in ("/dev/vda", "/dev/vdb", "/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern", "/sys/power/state",
             "/proc/sys/kernel/modprobe", "/usr/bin/python3", "/etc/passwd",
             "/sys/bus/platform/drivers/virtio-mmio/unbind"):
    opened(path, os.O_WRONLY)
call("finit_module", 313, 0, b"", 0)
call("init_module", 175, b"x", 1, b"")
call("kexec_load", 246, 0, 0, 0, 0)
call("bpf", 321, 0, ctypes.create_string_buffer(128), 128)
call("perf_event_open", 298, ctypes.create_string_buffer(128), 0, -1, -1, 0)
call("io_uring_setup", 425, 8, ctypes.create_string_buffer(128))
call("userfaultfd", 323, 0)
for name, flag in (("user", 0x10000000), ("mount", 0x20000), ("net", 0x40000000), ("pid", 0x20000000)):
    call(f"unshare {name}", 272, flag)
call("mount", 165, b"tmpfs", b"/mnt", b"tmpfs", 0, 0)
call("remount root", 165, 0, b"/", 0, 32, 0)
call("pivot_root", 155, b"/tmp", b"/tmp")
call("mknod", 133, b"/tmp/vda", 0o60666, 0xFE00)
call("iopl", 172, 3)
call("ioperm", 173, 0x64, 1, 1)
call("reboot", 169, 0xFEE1DEAD, 672274793, 0x1234567, 0)
call("swapon", 167, b"/tmp/x", 0)
attempt("clock back", lambda: time.clock_settime(time.CLOCK_REALTIME, 0))
call("adjtimex", 159, struct.pack("=I4xqqqi", 2, 0, 0, 0, 0).ljust(208, b"\\0"))
attempt("host name", lambda: socket.sethostname("other"))
"""
NETWORK = """
attempt("interfaces", lambda: sorted(os.listdir("/sys/class/net")))
def reach(host, port, family=socket.AF_INET, kind=socket.SOCK_STREAM):
    with socket.socket(family, kind) as s:
        s.settimeout(5)
        s.connect((host, port))
        if kind == socket.SOCK_DGRAM:
            s.send(b"x")
for host in ("169.254.169.254", "10.0.2.2", "10.0.2.3", "192.168.0.1", "172.16.0.1", "8.8.8.8", "255.255.255.255"):
    for port in (80, CANARY_PORT):
        attempt(f"tcp {host}:{port}", lambda: reach(host, port))
    attempt(f"udp {host}", lambda: reach(host, 53, kind=socket.SOCK_DGRAM))
for host in ("fe80::1%lo", "2001:4860:4860::8888", "ff02::1"):
    attempt(f"tcp6 {host}", lambda: reach(host, 80, socket.AF_INET6))
for port in (22, 80, 5000, CANARY_PORT):
    attempt(f"loopback {port}", lambda: reach("127.0.0.1", port))
attempt("dns", lambda: socket.getaddrinfo("secret.example.com", 80))
attempt("raw icmp", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
attempt("packet", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 768))
attempt("netfilter", lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12))
"""
VSOCK = """
def vsock(cid, port, wait=3.0):
    with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as s:
        s.settimeout(wait)
        s.connect((cid, port))
answered = []
for port in [*range(1, 600), 1024, 5000, 5001, 8080, 9999, 52000, 2**31, 2**32 - 2]:
    try:
        vsock(2, port)
        answered.append(port)
    except OSError:
        pass
found["host ports that answered"] = answered
for cid in (0, 1, 3, 4, 2**32 - 2):
    attempt(f"the agent's port at {cid}", lambda: vsock(cid, 5000))
attempt("take the agent's port", lambda: socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM).bind((2**32 - 1, 5000)))
opened_count = 0
for _ in range(6):
    held = []
    try:
        for port in range(500):
            s = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
            held.append(s)
            s.setblocking(False)
            s.connect_ex((2, 7000 + port))
            opened_count += 1
    except OSError:
        pass
    for s in held:
        s.close()
found["half-open"] = opened_count
"""
SECRETS = """
import re, sys
places = ["/proc/cmdline", "/proc/self/environ", "/proc/self/mountinfo", "/proc/mounts", "/etc/machine-id"]
for top in ("/mayfly", "/run", "/tmp", "/etc", "/home", "/root", "/var", "/opt", "/srv", "/mnt"):
    for place, _, names in os.walk(top):
        places += [os.path.join(place, name) for name in names]
for place in places:
    if os.path.islink(place):
        continue
    try:
        fd = os.open(place, os.O_RDONLY | os.O_NONBLOCK)
        data = os.read(fd, 1 << 18)
        os.close(fd)
    except OSError:
        continue
    os.write(1, data + b"\\n")
"""


@dataclass(frozen=True)
class Attack:
    results: Outcomes
    canary_touched: list[str]
    before: dict[str, Any]

    def found(self, name: str) -> dict[str, Any]:
        """What the probe of that name could do; it ran to its end."""
        result: Execution = self.results[name]
        assert (result.status, result.stderr) == ("succeeded", "")
        shown: dict[str, Any] = json.loads(result.stdout)
        return shown


@pytest.fixture(scope="module")
def canary() -> Iterator[tuple[int, list[str]]]:
    """A listener on this machine's loopback, which the emulated host would know as 10.0.2.2."""
    touched: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def listen() -> None:
            while True:
                try:
                    connection, peer = listener.accept()
                except OSError:
                    return
                touched.append(str(peer))
                connection.close()

        thread = threading.Thread(target=listen)
        thread.start()
        yield listener.getsockname()[1], touched
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.fixture(scope="module")
def attack(live_node: LiveNode, program: Any, canary: tuple[int, list[str]]) -> Attack:
    hostile = {"policy": "research", "timeout_s": 200, "output_bytes": 32 << 20}
    port, touched = canary
    live_node.run_all({"first": program("")})
    before = live_node.rest()
    results = live_node.run_all(
        {
            "agent": program(PROBE + AGENT + END, hostile),
            "kernel": program(PROBE + KERNEL + END, hostile),
            "network": program(PROBE + NETWORK.replace("CANARY_PORT", str(port)) + END, hostile),
            "vsock": program(PROBE + VSOCK + END, hostile),
            "secrets": program(PROBE + SECRETS, hostile),
            "after": program("print('still here')"),
        }
    )
    return Attack(results, touched, before)


def done(found: dict[str, Any]) -> dict[str, Any]:
    return {name: what for name, what in found.items() if str(what).startswith("done")}


def test_the_agent_cannot_be_signalled_traced_read_or_replaced(attack: Attack) -> None:
    assert done(attack.found("agent")) == {}


def test_kernel_devices_clock_and_mounts_are_out_of_reach(attack: Attack) -> None:
    assert done(attack.found("kernel")) == {}


def test_there_is_no_network_but_the_machine_s_own_loopback(attack: Attack) -> None:
    found = attack.found("network")
    assert found.pop("interfaces") == "done: ['lo']"
    assert done({name: what for name, what in found.items() if not name.startswith("netfilter")}) == {}
    assert not {"ETIMEDOUT", "TimeoutError"} & set(found.values()), "each fails at once"
    assert attack.canary_touched == []


def test_no_port_of_the_host_answers_and_the_agent_answers_only_the_host(attack: Attack) -> None:
    found = attack.found("vsock")
    assert found["host ports that answered"] == []
    assert done(found) == {}
    assert found["half-open"] >= 1000, "the probe did open its connections"


def test_no_secret_of_the_host_is_in_the_guest(attack: Attack, live_node: LiveNode) -> None:
    result = attack.results["secrets"]
    assert result.status == "succeeded"
    assert len(result.stdout) > 1000
    assert live_node.paths.node_token.exists()
    assert live_node.paths.node_token.read_text().strip() not in result.stdout
    assert str(live_node.paths.root) not in result.stdout


def test_the_node_answers_as_before(attack: Attack, live_node: LiveNode) -> None:
    assert attack.results["after"].stdout == "still here\n"
    live_node.assert_flat(attack.before)
