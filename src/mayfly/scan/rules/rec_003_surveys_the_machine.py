"""MF-REC-003."""

from __future__ import annotations

from mayfly.scan.facts import CallUse, CommandUse, ProgramEnd
from mayfly.scan.judge import shown
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]

_COMMANDS = frozenset(
    {
        "whoami",
        "id",
        "hostname",
        "uname",
        "ifconfig",
        "netstat",
        "ss",
        "ps",
        "arp",
        "route",
        "w",
        "who",
        "last",
        "lastlog",
        "lsblk",
        "lscpu",
        "lsmod",
        "lspci",
        "lsof",
        "groups",
        "getent",
        "finger",
        "ip",
        "crontab",
        "ipconfig",
        "systeminfo",
        "tasklist",
        "env",
        "printenv",
    }
)
_CALLS = frozenset(
    {
        "pwd.getpwall",
        "grp.getgrall",
        "psutil.net_connections",
        "psutil.users",
        "psutil.process_iter",
        "socket.gethostname",
        "getpass.getuser",
        "netifaces.interfaces",
        "psutil.net_if_addrs",
        "os.getlogin",
        "uuid.getnode",
    }
)


def _check(fact: ProgramEnd, _scene: Scene) -> Hit | None:
    commands = {f.name for f in fact.of(CommandUse)} & _COMMANDS
    calls = {f.name for f in fact.of(CallUse)} & _CALLS
    if len(commands) + len(calls) < 3 or (len(commands) + len(calls) < 4 and not commands):
        return None
    return Hit(f"surveys the machine: {shown(', '.join(sorted(commands | calls)))}")


RULE = Rule(
    id="MF-REC-003",
    title="Surveys the machine",
    rationale="Users, processes, connections, disks, one after another: a survey, not a computation.",
    severity="medium",
    cwe="CWE-200",
    confidence="high",
    capabilities=("proc",),
    facts=(ProgramEnd,),
    check=_check,
    examples={
        "python": "import os\nos.system('whoami; id; netstat -an; ps aux')",
        "bash": "whoami; id; ifconfig; ps aux",
    },
    near_misses={
        "python": "import os\nos.system('date')",
        "bash": "date; uname",
    },
    languages=("python", "bash"),
)
