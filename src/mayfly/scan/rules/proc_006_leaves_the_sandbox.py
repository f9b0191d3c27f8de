"""MF-PROC-006."""

from __future__ import annotations

from mayfly.scan.facts import CallUse, CommandUse, FileUse
from mayfly.scan.judge import path_of_kind, shown
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]

_TOOLS = frozenset(
    {
        "nsenter",
        "unshare",
        "chroot",
        "pivot_root",
        "mount",
        "umount",
        "insmod",
        "rmmod",
        "modprobe",
        "kexec",
        "losetup",
        "debugfs",
        "capsh",
        "runc",
        "crictl",
        "ctr",
    }
)
_CALLS = frozenset({"os.chroot", "os.unshare", "os.setns", "docker.from_env", "docker.DockerClient"})


def _check(fact: CommandUse | FileUse | CallUse, scene: Scene) -> Hit | None:
    if isinstance(fact, FileUse):
        path = path_of_kind(fact, scene, ("container",))
        writes = fact.op in ("write", "link", "chmod")
        if path is not None and (writes or "docker.sock" in path or "containerd.sock" in path or "crio.sock" in path):
            return Hit(f"uses a control file of the machine: {shown(path)}")
        return None
    if isinstance(fact, CallUse):
        return Hit(f"calls {fact.name}")
    if fact.name in _TOOLS or (fact.name in ("docker", "podman", "kubectl") and "--privileged" in fact.args):
        return Hit(f"runs {fact.name}")
    return None


RULE = Rule(
    id="MF-PROC-006",
    title="Reaches for the machine around it",
    rationale=(
        "Namespaces, mounts, kernel modules and the sockets of container services are the ways out of a container."
    ),
    severity="high",
    cwe="CWE-250",
    confidence="high",
    capabilities=("proc",),
    facts=(CommandUse, FileUse, CallUse),
    only={CallUse: _CALLS},
    check=_check,
    examples={
        "python": "import os\nos.system('nsenter -t 1 -m sh')",
        "bash": "insmod evil.ko",
    },
    near_misses={
        "python": "import os\nos.system('uname -r')",
        "bash": "docker ps",
    },
    languages=("python", "bash"),
)
