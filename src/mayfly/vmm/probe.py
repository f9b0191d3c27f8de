"""Does KVM run guests here? Only a boot of the real kernel to its agent tells; the answer is remembered.

A `/dev/kvm` can exist, open, and create machines, and still never run one (nested software KVM). The answer is kept
in the state directory for this machine, kernel, processor, Firecracker and guest.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import platform
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import msgspec

from mayfly.errors import MayflyError
from mayfly.model import HostInfo
from mayfly.vmm.firecracker import FirecrackerLauncher, UidRange
from mayfly.vmm.launcher import MachineSpec
from mayfly.vmm.leftovers import remove_parents

if TYPE_CHECKING:
    from mayfly.vmm.jail import JailerOptions
    from mayfly.vmm.machine import BootSource

__all__ = ["KvmAnswer", "device_problem", "probe_kvm", "remembered_answer"]

_KVM_GET_API_VERSION = 0xAE00
_API_VERSION = 12
_WITH_FLAGS_DEADLINE_S = 15.0
_WITHOUT_FLAGS_DEADLINE_S = 4.0
"""A processor that shows no virtualisation to us rarely has any; the guest still gets a chance."""
_PROBE_UID = 899_999
_FILE_MAX_BYTES = 4096


class KvmAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Whether guests run here, and a sentence that says why."""

    usable: bool
    reason: str
    key: str = ""
    boot_ms: float | None = None


def device_problem(device: Path = Path("/dev/kvm")) -> str | None:
    """What is wrong with the device before any guest is tried; None when it opens and speaks KVM's API."""
    if not device.exists():
        return f"{device} does not exist"
    try:
        descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        return f"{device} cannot be opened: {error.strerror}"
    try:
        version = fcntl.ioctl(descriptor, _KVM_GET_API_VERSION)
    except OSError as error:
        return f"{device} is not KVM: {error.strerror}"
    finally:
        os.close(descriptor)
    return None if version == _API_VERSION else f"{device} speaks KVM API {version}, not {_API_VERSION}"


def remembered_answer(file: Path, key: str) -> KvmAnswer | None:
    """The answer found earlier under the same circumstances."""
    try:
        with file.open("rb") as stream:
            answer = msgspec.json.decode(stream.read(_FILE_MAX_BYTES), type=KvmAnswer)
    except (OSError, msgspec.DecodeError):
        return None
    return answer if answer.key == key else None


def _probe_key(options: JailerOptions, source: BootSource) -> str:
    """Names the circumstances: machine, its kernel and processor, Firecracker, guest kernel and image."""
    parts = [
        _first_line(Path("/etc/machine-id")),
        platform.release(),
        _cpu_model(),
        # the store's keys, so that the answer holds wherever the state directory is
        *(file.parent.name for file in (options.firecracker, source.kernel, source.rootfs)),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


async def probe_kvm(options: JailerOptions, source: BootSource, file: Path) -> KvmAnswer:
    """Boot a guest to its agent within a deadline, unless the answer is known. Needs root. Leaves nothing behind."""
    if problem := device_problem():
        return KvmAnswer(usable=False, reason=problem)
    key = _probe_key(options, source)
    if known := remembered_answer(file, key):
        return known
    answer = await _boot_once(options, source, key)
    remove_parents(options)
    with contextlib.suppress(OSError):  # not remembering costs a few seconds next time
        half = file.with_suffix(".half")
        half.write_bytes(msgspec.json.encode(answer))
        half.replace(file)
    return answer


async def _boot_once(options: JailerOptions, source: BootSource, key: str) -> KvmAnswer:
    flags = _has_virtualisation_flags()
    deadline_s = _WITH_FLAGS_DEADLINE_S if flags else _WITHOUT_FLAGS_DEADLINE_S
    spec = MachineSpec(id=f"probe-{secrets.token_hex(6)}", mem_mib=128, vcpus=1)
    started = time.perf_counter()
    try:
        async with anyio.create_task_group() as group:
            launcher = FirecrackerLauncher(
                options,
                source,
                HostInfo(kind="kvm", firecracker=""),
                group,
                uids=UidRange(_PROBE_UID, 1),
                agent_deadline_s=deadline_s,
            )
            try:
                machine = await launcher.launch(spec)
            except MayflyError as error:
                return KvmAnswer(usable=False, reason=_why(error, deadline_s, flags=flags), key=key)
            boot_ms = round((time.perf_counter() - started) * 1000, 1)
            with anyio.CancelScope(shield=True):
                await machine.destroy()
            group.cancel_scope.cancel()
    except MayflyError as error:
        return KvmAnswer(usable=False, reason=f"the probe's machine could not be removed: {error}")
    return KvmAnswer(usable=True, reason=f"a guest booted in {boot_ms:.0f} ms", key=key, boot_ms=boot_ms)


def _why(error: MayflyError, deadline_s: float, *, flags: bool) -> str:
    if error.code == "vmm_timeout":
        where = "" if flags else " on a processor that shows no vmx or svm"
        return f"/dev/kvm takes machines but a guest did not come up within {deadline_s:g} s{where}"
    return f"/dev/kvm does not run guests: {error.message.splitlines()[0][:200]}"


def _first_line(path: Path) -> str:
    try:
        return path.read_text()[:200].strip()
    except OSError:
        return ""


def _cpu_lines() -> list[str]:
    try:
        with Path("/proc/cpuinfo").open() as file:
            return file.read(16384).splitlines()
    except OSError:
        return []


def _cpu_model() -> str:
    return next((line for line in _cpu_lines() if line.startswith("model name")), "")


def _has_virtualisation_flags() -> bool:
    words = next((line for line in _cpu_lines() if line.startswith("flags")), "").split()
    return "vmx" in words or "svm" in words
