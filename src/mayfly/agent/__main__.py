"""Start of the agent: in the guest as PID 1, or with `--unix PATH` as a plain process for tests.

As a plain process it mounts nothing and makes no cgroups; limits then rest on rlimits and on looking at the
process tree 20 times a second, and programs run as uid 1000 only where the agent is root.
"""

from __future__ import annotations

import os
import resource
import sys

from mayfly.agent.bare import signal, socket
from mayfly.agent.loop import Loop, log
from mayfly.agent.process import Settings, preload_list
from mayfly.agent.requests import RequestError
from mayfly.agent.server import Server
from mayfly.guest.frames import AGENT_PORT

__all__ = ["main"]

_UID = 1000
_BACKLOG = 128
_PRELOAD = "/usr/share/mayfly/preload"
_WARM_LATER_S = 0.05
_LOAD_LATER_S = 0.1
_HERE = os.path.dirname(os.path.abspath(__file__))


def main() -> None:
    """Serves until the machine ends, or SIGTERM in plain mode."""
    args = sys.argv[1:]
    if not args:
        _serve_guest()
        return
    given = dict(zip(args[::2], args[1::2], strict=False))
    if len(args) % 2 or "--unix" not in given or given.keys() - {"--unix", "--mem-mib", "--preload"}:
        sys.exit("usage: python3 -m mayfly.agent [--unix PATH [--mem-mib N] [--preload FILE]]")
    memory = int(given["--mem-mib"]) << 20 if "--mem-mib" in given else None
    _serve_plain(given["--unix"], memory, preload_list(given.get("--preload", "")))


def _serve_guest() -> None:
    from mayfly.agent import init

    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # connections, pipes of processes and contexts

    # Before anything slow: a connection that comes early then waits in the backlog instead of being refused.
    listener = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    listener.bind((socket.VMADDR_CID_ANY, AGENT_PORT))
    listener.listen(_BACKLOG)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the kernel sends it to PID 1 at Ctrl-Alt-Del
    init.prepare_guest(_UID)
    settings = Settings(
        home="/home/user",
        site=_HERE,
        python="/usr/bin/python3",
        bash="/bin/bash",
        uid=_UID,
        in_guest=True,
        preload=preload_list(_PRELOAD),
    )
    loop = Loop()
    server = Server(loop, listener, settings, cgroup_parent=init.CGROUP_PARENT)
    # Not before the host's first question is answered: a program that comes earlier starts its own interpreter.
    loop.call_in(_WARM_LATER_S, lambda: server.runners.get_ready(lambda: _settle(server)))
    loop.call_in(_LOAD_LATER_S, _load_the_rest)
    loop.run()


def _load_the_rest() -> None:
    """What sandboxes need, once a program that waits for the boot has begun; in a template it is there for all."""
    from mayfly.agent import greet, jobs, operations, registry  # noqa: F401  for their being loaded


def _settle(server: Server) -> None:
    """When nothing is left to get ready: does once what a clone's first steps are, so that they are less work then."""
    import gc

    from mayfly.agent import greet, rehearsal

    def over() -> None:
        gc.collect()
        gc.freeze()  # the collector would write to every page, which clones share

    if server.greeted:
        return  # it has its own names already, and is somebody's
    try:
        greet.prepare()
        rehearsal.rehearse(server, over)
    except (OSError, RequestError) as error:
        log(f"rehearsal: {error}")


def _serve_plain(path: str, memory: int | None, preload: list[str]) -> None:
    import shutil

    from mayfly.agent import kernel

    kernel.become_subreaper()
    work = f"{os.environ.get('TMPDIR', '/tmp')}/mayfly-agent-{os.getpid()}-{os.urandom(4).hex()}"  # noqa: S108
    os.mkdir(work)
    try:
        settings = _plain_settings(work, preload)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(path)
        listener.listen(_BACKLOG)
        loop = Loop()
        server = Server(loop, listener, settings, memory_bytes=memory)
        signal.signal(signal.SIGTERM, lambda *_: loop.stop())
        server.runners.get_ready()
        loop.run()
        server.shut_down()
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _plain_settings(work: str, preload: list[str]) -> Settings:
    """A home and a copy of the runner's files that the programs' user can read, wherever the package lies."""
    as_root = os.getuid() == 0
    os.chmod(work, 0o755)  # noqa: S103  the programs' user looks in
    home, site = f"{work}/home", f"{work}/site"
    os.mkdir(home)
    os.makedirs(f"{site}/mayfly/agent/inside")
    for package in ("", "/agent"):
        with open(f"{site}/mayfly{package}/__init__.py", "wb"):
            pass
    for name in ("sitecustomize.py", "preload.py", *(f"inside/{name}" for name in os.listdir(f"{_HERE}/inside"))):
        if os.path.isfile(f"{_HERE}/{name}"):
            _copy(f"{_HERE}/{name}", f"{site}/mayfly/agent/{name}")
    if as_root:
        os.chown(home, _UID, _UID)
    system_python = "/usr/bin/python3"
    return Settings(
        home=home,
        site=f"{site}/mayfly/agent",
        python=system_python if os.access(system_python, os.X_OK) else sys.executable,
        bash="/bin/bash",
        uid=_UID if as_root else None,
        in_guest=False,
        preload=preload,
    )


def _copy(source: str, target: str) -> None:
    with open(source, "rb") as original, open(target, "wb") as copy:
        copy.write(original.read())


if __name__ == "__main__":
    main()
