"""Commands that use the network, processes and the environment."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from mayfly.scan.commands.command import secret_taints
from mayfly.scan.facts import UNKNOWN, Value
from mayfly.scan.values import concat, taints_of, unknown

if TYPE_CHECKING:
    from collections.abc import Callable

    from mayfly.scan.commands.command import Command


__all__ = ["MACHINE"]

_BARE = re.compile(r"^(?:localhost|0x[0-9a-fA-F]+|\d{8,10})(?:[:/]|$)")
_SEND_FLAGS = (
    "-d", "--data", "--data-binary", "--data-raw", "--data-urlencode", "-F", "--form", "-T", "--upload-file",
    "--json", "--post-data", "--post-file", "--body-data", "--body-file",
)  # fmt: skip


def _fetch(call: Command) -> Value:
    """Curl and wget."""
    rec = call.rec
    out = call.option("-o", "--output") if call.name == "curl" else call.option("-O", "--output-document")
    sent = [v for name in _SEND_FLAGS for v in [call.option(name)] if v is not None]
    for value in sent:
        for text in value.texts:
            source = text[text.index("@") + 1 :] if "@" in text[:1] or re.match(r"^\w*=?@", text) else ""
            if source:
                rec.file("read", Value(consts=(source,)))
    data = Value(taints=taints_of([*sent, call.stdin]) | _sent_secret(sent), elements=tuple(sent)) if sent else UNKNOWN
    method = call.option("-X", "--request", "--method")
    sends = bool(sent) or bool(method and method.texts and method.texts[0].upper() in ("POST", "PUT", "PATCH"))
    used = {id(out), *(id(v) for v in sent)}
    for target in call.positional:
        text = (target.texts or ("",))[0]
        if id(target) not in used and (not target.texts or "." in text or "://" in text or _BARE.match(text)):
            rec.net("send" if sends else "fetch", target, data=data)
    if out is not None and out.texts and out.texts[0] != "-":
        rec.file("write", out, content=unknown("net"))
    elif call.name == "wget" and out is None:
        for target in call.positional:
            for text in target.texts:
                rec.file("write", Value(consts=(text.rstrip("/").rpartition("/")[2],)), content=unknown("net"))
    return unknown("net", "output")


def _sent_secret(sent: list[Value]) -> set[str]:
    files = [t[t.index("@") + 1 :] for v in sent for t in v.texts if "@" in t]
    return secret_taints([Value(consts=(name,)) for name in files] + sent)


def _netcat(call: Command) -> Value:
    rec = call.rec
    listening = call.has("l", "--listen") or any("LISTEN" in t.upper() for t in call.texts)
    runs = call.has("ec", "--exec", "--sh-exec") or any(re.search(r"(?i)^(?:exec|system):", t) for t in call.texts)
    hosts = [v for v in call.positional if v.texts and not v.texts[0].isdigit()] or [UNKNOWN]
    target = hosts[0]
    if call.name == "socat":
        tails = [re.sub(r"(?i)^\w+[-:]?(?:listen|connect)?:", "", v.texts[0]).split(",")[0] for v in hosts if v.texts]
        target = Value(consts=tuple(tails[:2]))
    if runs:
        rec.call("network-shell", [target])
    if listening:
        rec.net("listen", Value(consts=("0.0.0.0",)))  # noqa: S104 - a value to judge
    elif call.has("z"):
        rec.call("port-scan", [target])
    else:
        rec.net("send" if call.stdin.taints or call.stdin.consts else "connect", target, data=call.stdin)
    return unknown("net")


def _connect(call: Command) -> Value:
    """ssh, telnet, ftp, scp, rsync: a host among the arguments; an FTP client's standard input is its orders."""
    if call.name in ("ftp", "sftp", "tftp", "lftp"):
        for order in re.findall(r"(?m)^\s*(?:m?put|send|append)\s+(\S+)", "\n".join(call.stdin.texts)[:65_536]):
            call.rec.file("read", Value(consts=(order,)))
    if call.name in ("ssh", "sshpass"):
        return _ssh(call)
    for value in call.positional:
        for text in value.texts:
            remote = re.match(r"^(?:[\w.-]+@)?([\w.-]+):", text) if call.name in ("scp", "rsync") else None
            if call.name not in ("scp", "rsync") or remote or "://" in text:
                call.rec.net("connect", Value(consts=(text,)) if remote is None else Value(consts=(remote[1],)))
                if call.name in ("telnet", "ftp"):
                    return unknown("net")
            else:
                call.rec.file("read", value)
    return unknown("net")


def _ssh(call: Command) -> Value:
    """`ssh -o A=b user@host COMMAND`: a host is reached, and a command runs there."""
    number = 0
    while number < len(call.args) and call.texts[number].startswith("-"):
        number += 2 if re.match(r"^-[BbcDEeFIiJLlmOopQRSWw]$", call.texts[number]) else 1
    if number < len(call.args):
        target = call.args[number]
        call.rec.net("connect", target)
        order = concat([part for arg in call.args[number + 1 :] for part in (arg, Value(consts=(" ",)))])
        if order.texts:
            call.rec.shell(order)
        elif call.stdin.texts:
            call.rec.shell(call.stdin)
    return unknown("net")


def _probe(call: Command) -> Value:
    """ping, dig, host, nslookup: a name is looked up or reached."""
    target = call.positional[-1] if call.positional else UNKNOWN
    call.rec.net("fetch", target, data=Value(taints=target.taints))
    return unknown("net")


def _kill(call: Command) -> Value:
    if call.has("l") and call.name == "kill":
        return UNKNOWN
    if call.name == "kill":
        # `-9` is a signal where it stands first; `-1` further on is every process.
        targets = [
            value
            for number, (value, text) in enumerate(zip(call.args, call.texts, strict=True))
            if not re.match(r"^-(?:[A-Z]\w*|s|n)$" if number else r"^-(?:[A-Z]\w*|s|n|\d{1,2})$", text)
        ]
        for number, target in enumerate(targets):
            text = (target.texts or ("",))[0]
            if not (number == 0 and text in ("TERM", "KILL", "INT", "HUP", "9", "15", "--") and len(targets) > 1):
                call.rec.kill("list" if "proclist" in target.taints else "pid", target)
        return UNKNOWN
    names = tuple(text for value in call.positional for text in value.texts)
    call.rec.kill("name", call.positional[0] if call.positional else UNKNOWN, names)
    return UNKNOWN


def _processes(_call: Command) -> Value:
    return unknown("proclist", "output")


def _environment(call: Command) -> Value:
    if call.name == "printenv" and call.positional:
        for name in call.positional:
            call.rec.env((name.texts or ("?",))[0])
        return unknown("env")
    if call.name in ("set", "export", "declare") and (call.positional or call.has("euxfaoEC")):
        return UNKNOWN
    call.rec.env(how=call.name)
    return unknown("env-all", "output")


def _git(call: Command) -> Value:
    verb = (call.texts or [""])[0]
    for value in call.positional[1:]:
        if any("://" in text or text.startswith("git@") for text in value.texts):
            call.rec.net("send" if verb == "push" else "fetch", value)
    return unknown("output")


def _http_server(call: Command) -> Value:
    """`python -m http.server`."""
    call.rec.net("listen", call.option("-b", "--bind") or Value(consts=("0.0.0.0",)))  # noqa: S104 - its default
    return unknown("output")


def _open_page(call: Command) -> Value:
    for value in call.positional:
        if any("://" in text for text in value.texts):
            call.rec.net("fetch", value)
    return UNKNOWN


MACHINE: dict[str, Callable[[Command], Value]] = {
    **dict.fromkeys(("curl", "wget"), _fetch),
    **dict.fromkeys(("nc", "ncat", "netcat", "socat"), _netcat),
    **dict.fromkeys(("ssh", "telnet", "ftp", "sftp", "scp", "rsync", "tftp", "rlogin"), _connect),
    **dict.fromkeys(("ping", "dig", "host", "nslookup", "drill", "whois", "traceroute"), _probe),
    **dict.fromkeys(("kill", "pkill", "killall", "skill", "xkill"), _kill),
    **dict.fromkeys(("ps", "pgrep", "pidof", "top", "lsof", "fuser"), _processes),
    **dict.fromkeys(("printenv", "set", "export", "declare"), _environment),
    **dict.fromkeys(("whoami", "hostname", "id", "uname", "logname"), lambda _call: unknown("output", "identity")),
    "git": _git,
    **dict.fromkeys(("http.server", "SimpleHTTPServer"), _http_server),
    **dict.fromkeys(("xdg-open", "firefox", "google-chrome", "lynx", "w3m"), _open_page),
}
"""By the command's name."""
