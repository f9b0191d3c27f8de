"""How sensitive a path is. Pure text: no path is looked at."""

from __future__ import annotations

import fnmatch
import re
from functools import lru_cache
from typing import Literal

__all__ = ["PathKind", "classify", "matches", "normalise"]

PathKind = Literal[
    "credentials",  # keys, tokens, password hashes, browsers' stores
    "accounts",  # who may log in and do what
    "history",  # what a person typed
    "log",
    "startup",  # what runs by itself: cron, services, profiles, autostart
    "resolver",  # how names resolve and what is let through
    "system",  # configuration, programs and libraries of the system
    "kernel",  # /proc, /sys: the kernel's view
    "process",  # another process's insides
    "device",  # raw devices
    "container",  # tell-tale files and control sockets
    "home",  # somebody's home directory
    "public",  # the system's, but made for everybody to read
    "root",  # / itself or a top-level directory
    "ordinary",
]

_CREDENTIALS = re.compile(
    r"""^/etc/g?shadow-?$ | /\.ssh/(?:id_|identity|.*_(?:rsa|ed25519|ecdsa|dsa)$) | /\.ssh/?$ | ^/etc/ssh/ssh_host
      | /\.aws(?:/|$) | /\.azure(?:/|$) | /\.config/gcloud | /\.kube(?:/|$) | /\.docker/config\.json | /\.netrc$
      | /\.git-credentials$ | /\.pypirc$ | /\.npmrc$ | /\.pgpass$ | /\.my\.cnf$ | /\.gnupg(?:/|$) | /\.vault-token$
      | /\.password-store | /\.config/gh/hosts | /\.env(?:\.[a-z]+)?$ | (?:^|/)(?:id_rsa|id_ed25519|id_ecdsa)$
      | ^/etc/ssl/private | \.(?:pem|key|p12|pfx|kdbx|keytab)$
      | (?:Login\ Data|Cookies|Web\ Data|key4\.db|logins\.json|cookies\.sqlite|Local\ State)$
      | /(?:google-chrome|chromium|BraveSoftware|Google/Chrome)(?:/|$) | /\.mozilla(?:/|$)
      | /\.(?:bitcoin|ethereum|electrum|config/solana|monero)(?:/|$) | wallet\.dat$ | /keyrings?(?:/|$)
      | /var/run/secrets | /run/secrets | ^/etc/krb5 | ^/etc/security/opasswd | \\(?:SAM|NTUSER\.DAT)$
      | discord\w*/Local\ Storage | Local\ Storage/leveldb | Telegram\ Desktop/tdata | ^/etc/(?:kubernetes|rancher)/
      | /\.terraform | /\.s3cfg$
    """,
    re.VERBOSE | re.IGNORECASE,
)
_ACCOUNTS = re.compile(
    r"^/etc/(?:passwd-?|group-?|sudoers(?:\.d(?:/|$)|$)|login\.defs|pam\.d(?:/|$)|security/|subuid|subgid|shells|"
    r"ssh/sshd?_config|doas\.conf|nsswitch\.conf|securetty)|/\.ssh/authorized_keys"
)
_HISTORY = re.compile(
    r"/\.(?:\w+_history|lesshst|viminfo|histfile|recently-used)|/(?:fish_history|ConsoleHost_history)"
)
_LOG = re.compile(r"^/var/(?:log|adm|spool/mail|mail)(?:/|$)|^/(?:var/run|run)/utmp|/[bw]tmp$")
_STARTUP = re.compile(
    r"^/etc/(?:cron|anacrontab|init\.d|rc|systemd|profile|bash\.bashrc|bashrc|environment|ld\.so\.preload|xdg/autostart|"
    r"update-motd|inittab|modules|skel|zsh|supervisor)|^/var/spool/(?:cron|at)|/\.config/(?:autostart|systemd)"
    r"|/\.(?:bashrc|bash_profile|bash_login|bash_logout|profile|zshrc|zprofile|zshenv|xinitrc|xprofile|pythonrc)"
    r"|^/(?:usr/)?lib/systemd/|/(?:sitecustomize|usercustomize)\.py$|\.pth$|/LaunchAgents/|/LaunchDaemons/"
    r"|/\.git/hooks/|/Start Menu/Programs/Startup|CurrentVersion\\Run",
    re.IGNORECASE,
)
_RESOLVER = re.compile(
    r"^/etc/(?:hosts(?:\.allow|\.deny)?$|resolv\.conf|iptables|nftables|ufw|firewalld|network|netplan)"
)
_SYSTEM = re.compile(r"^/(?:etc|usr|bin|sbin|lib|lib32|lib64|libx32|boot|opt/[^/]*/bin|System|Library)(?:/|$)")
_LOCAL = re.compile(r"^/usr/(?:local/)?(?:share/(?:dict|zoneinfo|fonts|doc|nltk_data|locale)|local/share)(?:/|$)")
_PUBLIC = re.compile(r"^/etc/(?:os-release|lsb-release|debian_version|timezone|localtime|mime\.types|issue|hostname)$")
_PROCESS = re.compile(
    r"^/proc/(?:\d+|self|\*|\{?\w*\}?|1)/(?:mem|environ|maps|cmdline|fd|root|cwd|exe|ns|cgroup|mountinfo|status)"
)
_KERNEL = re.compile(r"^/(?:proc|sys)(?:/|$)")
_HARMLESS_KERNEL = re.compile(
    r"^/proc/(?:cpuinfo|meminfo|uptime|loadavg|stat|vmstat|version|mounts|filesystems|self/(?!environ|mem$|root|cwd|cgroup)"
    r"|self$|sys/kernel/(?:random/|osrelease|hostname|pid_max))"
    r"|^/sys/(?:fs/cgroup|devices/system/(?:cpu|node)|class/thermal|class/power_supply)(?:/|$)"
)
_DEVICE = re.compile(
    r"^/dev/(?:sd|hd|vd|xvd|nvme|mmcblk|loop|dm-|mapper|md|disk|mem|kmem|port|kvm|kmsg|input|video|tty\d|ram|nbd|vsock|sg)"
    r"|^\\\\\.\\"
)
_CONTAINER = re.compile(
    r"^/\.dockerenv|^/run/\.containerenv|docker\.sock|containerd\.sock|crio\.sock|/sys/class/dmi|/sys/hypervisor"
    r"|/sys/firmware|/proc/(?:1/cgroup|self/cgroup|scsi/scsi|ide|xen|vz)|/release_agent|/notify_on_release|core_pattern"
    r"|/proc/sysrq-trigger|/dev/vboxguest|firecracker|vsock$|\.sock$"
)
_HOME = re.compile(r"^(?:/root|/home/[^/]+|/Users/[^/]+|~\w*)/*\*?$|^/home/?$|^/root(?:/|$)|^(?:C:)?\\Users")
_ROOT = re.compile(r"^/(?:\*|var|opt|srv|mnt|media|home|root|dev)?/?\*?$|^[A-Z]:[\\/]?$")


def normalise(path: str) -> str:
    """The path without `.`, `..` and doubled slashes; `$HOME` and `%USERPROFILE%` become `~`."""
    text = path.removeprefix("file://").strip()
    text = re.sub(r"^(?:\$\{?HOME\}?|%USERPROFILE%)", "~", text)
    absolute = text.startswith("/")
    if "/" not in text:
        return text
    parts: list[str] = []
    for part in text.split("/"):
        if part in ("", "."):
            continue
        if part == ".." and parts and parts[-1] != "..":
            parts.pop()
        elif part != ".." or not absolute:
            parts.append(part)
    return ("/" if absolute else "") + "/".join(parts)


def _unglob(pattern: str) -> str | None:
    """The well-known sensitive path that a pattern such as `/e?c/p*wd` means."""
    return next((known for known in _WELL_KNOWN if fnmatch.fnmatchcase(known, pattern)), None)


_WELL_KNOWN = ("/etc/shadow", "/etc/passwd", "/etc/sudoers", "/root/.ssh/id_rsa", "/root/.bash_history", "/etc/hosts")
_ORDER: tuple[tuple[PathKind, re.Pattern[str]], ...] = (
    ("credentials", _CREDENTIALS),
    ("accounts", _ACCOUNTS),
    ("history", _HISTORY),
    ("startup", _STARTUP),
    ("resolver", _RESOLVER),
    ("log", _LOG),
    ("container", _CONTAINER),
    ("process", _PROCESS),
)


def classify(path: str) -> PathKind:
    """How sensitive a path is; the worst reading of it. What is over 4,096 characters long no kernel takes."""
    return _classify(path[:4096])


@lru_cache(maxsize=2048)
def _classify(raw: str) -> PathKind:  # noqa: C901, PLR0911 - a list of kinds, in order
    if "/" not in raw and "\\" not in raw and "." not in raw and raw != "~" and not raw.startswith("id_"):
        return "ordinary"
    text = normalise(raw)
    if text.startswith("/") and any(sign in text for sign in "?*[") and (meant := _unglob(text)):
        text = meant
    if _PUBLIC.match(text) or _HARMLESS_KERNEL.match(text):
        return "public"
    for kind, pattern in _ORDER:
        if pattern.search(text):
            # A key or `.env` beside the program is the program's own business.
            if kind == "credentials" and not text.startswith(("/", "~")) and not re.search(r"/\.\w|\\|id_", "/" + text):
                return "ordinary"
            return kind
    if _LOCAL.match(text):
        return "public"
    for late, pattern in (
        ("system", _SYSTEM),
        ("kernel", _KERNEL),
        ("device", _DEVICE),
        ("home", _HOME),
        ("root", _ROOT),
    ):
        if pattern.search(text):
            return late  # type: ignore[return-value]
    if "\\" in text:
        return _classify(text.replace("\\", "/"))  # the same place as Windows spells it
    # Climbing out of the working directory by five levels or more aims at the root.
    return "system" if text.startswith("../../../../..") else "ordinary"


def matches(path: str, patterns: tuple[str, ...]) -> bool:
    """True when a pattern (with `*` for anything) is the path or a directory above it."""
    if not patterns:
        return False
    text = normalise(path)
    for pattern in patterns:
        expression = re.escape(pattern.rstrip("/")).replace(r"\*", ".*")
        if re.match(rf"^{expression}(?:/.*)?$", text, re.DOTALL):
            return True
    return False
