"""MF-PROC-001."""

from __future__ import annotations

from mayfly.scan.facts import KillUse
from mayfly.scan.judge import shown
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]

_GUARDS = (
    "sshd",
    "systemd",
    "dockerd",
    "containerd",
    "init",
    "cron",
    "rsyslog",
    "auditd",
    "falco",
    "clam",
    "crowdstrike",
    "firewalld",
    "dbus",
    "udev",
    "journald",
    "networkd",
    "kubelet",
    "fail2ban",
    "apparmor",
    "sysdig",
    "ossec",
)


def _check(fact: KillUse, _scene: Scene) -> Hit | None:
    if fact.target.taints & {"own-child", "own-pid"}:
        return None
    names = " ".join((*fact.names, *fact.target.texts)).lower()
    if any(word in names for word in _GUARDS):
        return Hit(f"ends a system process: {shown(names)}", severity="high")
    if fact.by in ("list", "name"):
        return Hit(
            f"ends processes that it found by looking: {shown(names)}" if names else "ends processes found in a list"
        )
    numbers = {str(c) for c in fact.target.consts}
    if numbers & {"1", "-1", "0"}:
        return Hit("signals every process or the first one", severity="high")
    return Hit("signals a process that it did not start", severity="medium" if numbers else "low")


RULE = Rule(
    id="MF-PROC-001",
    title="Ends processes that it did not start",
    rationale=(
        "Searching the list of processes and ending some of them stops what others need: services, guards, neighbours."
    ),
    severity="medium",
    cwe="CWE-250",
    confidence="high",
    capabilities=("signal",),
    facts=(KillUse,),
    check=_check,
    examples={
        "python": ("import psutil\nfor p in psutil.process_iter():\n    if 'x' in p.name():\n        p.kill()"),
        "bash": "pkill -9 sshd",
        "javascript": "process.kill(1, 'SIGKILL')",
    },
    near_misses={
        "python": "import subprocess\np = subprocess.Popen(['sleep', '1'])\np.kill()",
        "bash": "sleep 9 &\nkill $!",
        "javascript": "process.kill(process.pid, 0)",
    },
    languages=("python", "bash", "javascript"),
)
