"""Calls that start, signal or replace processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mayfly.scan.facts import UNKNOWN, Value
from mayfly.scan.values import join, unknown

if TYPE_CHECKING:
    from collections.abc import Callable

    from mayfly.scan.python.site import Site

__all__ = ["CALLS", "METHODS"]


def _system(site: Site) -> Value:
    return site.rec.shell(site.arg(0, "command", "cmd"))


def _run(site: Site) -> Value:
    """`subprocess.run` and its kin: a list, or a text that a shell gets."""
    command = site.arg(0, "args", "cmd")
    shell = site.kwargs.get("shell")
    through_shell = shell is not None and (not shell.consts or any(shell.consts))
    stdin = join(site.kwargs.get("input", UNKNOWN), site.kwargs.get("stdin", UNKNOWN))
    if any("socket" in v.origin or "socket" in v.taints for v in (stdin, site.kwargs.get("stdout", UNKNOWN))):
        site.rec.call("network-shell", [command])
    if through_shell:
        text = command.elements[0] if command.elements else command
        out = site.rec.shell(text, stdin)
    elif command.elements:
        out = site.rec.start(list(command.elements), stdin)
    elif command.texts and command.consts:
        out = site.rec.start(_words(command), stdin)
    else:
        out = site.rec.start([Value(taints=command.taints, prefix=command.prefix)], stdin)
    # What a search for a name that the program does not choose has found is its caller's to end.
    chosen = command.consts or (command.elements and all(member.texts for member in command.elements))
    child = {"own-child"} if site.function.origin == "subprocess.Popen" or not chosen else set()
    child |= {"chosen"} if chosen else set()
    return Value(taints=out.taints | {"output", *child}, origin="subprocess.Popen()", consts=out.consts)


def _words(command: Value) -> list[Value]:
    """A text given without a shell is a program's name; many write a whole command line there."""
    words = (command.texts or ("",))[0].split()
    return [Value(consts=(word,), taints=command.taints) for word in words] or [UNKNOWN]


def _shell_text(site: Site) -> Value:
    """`os.popen`, `subprocess.getoutput`: always a shell."""
    out = site.rec.shell(site.arg(0, "cmd", "command"))
    return Value(taints=out.taints | {"output"})


def _exec(site: Site) -> Value:
    """`os.execv(path, args)`, `os.execl(path, *args)`; `os.spawn*` take a mode first."""
    args = (
        site.args[1:] if "spawn" in site.function.origin and site.function.origin.startswith("os.spawn") else site.args
    )
    if len(args) > 1 and args[1].elements is not None:
        argv = [args[0], *args[1].elements[1:]]
    else:
        argv = [args[0], *args[2:]] if args else [UNKNOWN]
    return site.rec.start(argv)


def _start_words(site: Site) -> Value:
    """`pty.spawn`, `asyncio.create_subprocess_exec`, `pexpect.spawn`: a program, or a list."""
    first = site.arg(0)
    argv = list(first.elements) if first.elements else [*(_words(first) if first.texts else [first]), *site.args[1:]]
    return site.rec.start(argv)


def _kill(site: Site) -> Value:
    target = site.arg(0, "pid", "pgid")
    # `os.kill(pid, 0)` asks whether a process lives.
    if 0 in site.arg(1, "sig").consts:
        return UNKNOWN
    if site.function.origin == "os.killpg" and "own" in target.origin:
        return UNKNOWN
    own = target.taints & {"own-pid", "own-child"} or target.origin.startswith(("os.getpid()", "os.fork()"))
    if not own:
        listed = target.taints & {"proclist", "output"} or "psutil" in target.origin
        site.rec.kill("list" if listed else "pid", target)
    return UNKNOWN


def _process_kill(site: Site) -> Value:
    """`process.kill()` of psutil: what was found in the list of all processes, or made from a number."""
    target = site.receiver
    if "psutil.Process()" in site.function.origin or "psutil" in target.origin:
        site.rec.kill("list" if "process_iter" in target.origin else "pid", target)
    return UNKNOWN


def _process_list(site: Site) -> Value:
    member = Value(origin="psutil.process_iter()[]", taints=frozenset({"proclist"}))
    return Value(elements=(member,), taints=frozenset({"proclist"}), origin=f"{site.function.origin}()")


def _process(site: Site) -> Value:
    """`psutil.Process(pid)`: without a pid it is the program itself."""
    if not site.args and not site.kwargs:
        return Value(origin="own-process()")
    if site.arg(0, "pid").origin.startswith("os.getpid()"):
        return Value(origin="own-process()")
    return Value(origin="psutil.Process()", taints=site.arg(0, "pid").taints)


def _own_pid(_site: Site) -> Value:
    return Value(origin="os.getpid()", taints=frozenset({"own-pid"}))


def _fork(site: Site) -> Value:
    site.rec.call("fork", [])
    return Value(origin="os.fork()", taints=frozenset({"own-child"}))


def _duplicate(site: Site) -> Value:
    """`os.dup2(socket.fileno(), 0)`: a process's standard streams become a connection."""
    if "socket" in site.arg(0).taints or "socket" in site.arg(0).origin:
        site.rec.call("network-shell", [site.arg(0)])
    return UNKNOWN


def _communicate(site: Site) -> Value:
    taints = site.receiver.taints | {"output"}
    both = Value(taints=taints - {"own-child"} if "chosen" in taints else taints)
    return Value(elements=(both, both), taints=both.taints)


_RUNNERS = ("run", "call", "Popen", "check_call", "check_output")
CALLS: dict[str, Callable[[Site], Value]] = {
    "os.system": _system,
    **{f"subprocess.{name}": _run for name in _RUNNERS},
    **dict.fromkeys(
        ("os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "commands.getoutput", "os.startfile",
         "asyncio.create_subprocess_shell", "get_ipython().system",
            "get_ipython().getoutput", "pexpect.run", "invoke.run", "fabric.Connection().run",
         "paramiko.SSHClient().exec_command"),
        _shell_text,
    ),
    **{f"os.exec{kind}": _exec for kind in ("v", "ve", "vp", "vpe", "l", "le", "lp", "lpe")},
    **{f"os.spawn{kind}": _exec for kind in ("v", "ve", "vp", "vpe", "l", "le", "lp", "lpe")},
    **dict.fromkeys(("os.posix_spawn", "os.posix_spawnp"), _exec),
    **dict.fromkeys(("pty.spawn", "asyncio.create_subprocess_exec", "pexpect.spawn", "pty.fork"), _start_words),
    **dict.fromkeys(("os.kill", "os.killpg", "signal.pidfd_send_signal"), _kill),
    **{
        f"psutil.{made}.{verb}": _process_kill
        for made in ("Process()", "process_iter()[]")
        for verb in ("kill", "terminate", "send_signal", "suspend")
    },
    **dict.fromkeys(("psutil.process_iter", "psutil.pids"), _process_list),
    "psutil.Process": _process,
    **dict.fromkeys(("os.getpid", "os.getpgid", "os.getpgrp"), _own_pid),
    **dict.fromkeys(("os.fork", "os.forkpty"), _fork),
    "os.dup2": _duplicate,
    "subprocess.Popen().communicate": _communicate,
}  # fmt: skip
METHODS: dict[str, Callable[[Site], Value]] = {
    "exec_command": lambda site: unknown("output", *site.taints),
}
