"""The process that stands in for a VMM: the real agent as its child, and Firecracker's vsock socket in front.

Started as a script by `FakeLauncher`, never imported. Ends, and kills all that descends from it, when its standard
input ends, or when the agent does, as a VM whose first process dies.
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

_PACKAGE = Path(__file__).resolve().parent.parent
_EXEC_FRAME = 0x03


def _import_nothing_else() -> None:
    """Makes `mayfly.agent` importable without the rest of the package, as on the agent's drive."""
    package = type(sys)("mayfly")
    package.__path__ = [str(_PACKAGE)]
    sys.modules["mayfly"] = package


def _start_agent(path: str, mem_mib: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    from mayfly.agent import kernel
    from mayfly.agent.__main__ import main as agent_main

    kernel.die_with_parent(9)
    sys.argv = ["mayfly.agent", "--unix", path, "--mem-mib", str(mem_mib)]
    agent_main()
    os._exit(0)


class _Front:
    """Answers `CONNECT` and relays, with the faults that were asked for."""

    def __init__(self, agent_path: str, faults: dict[str, Any]) -> None:
        self._agent_path = agent_path
        self._faults = faults
        self._seen = 0

    def serve(self, connection: socket.socket) -> None:
        """One connection, in a thread of its own."""
        self._seen += 1
        number = self._seen
        with connection:
            line = connection.makefile("rb", buffering=0).readline(64)
            if not line.startswith(b"CONNECT "):
                return
            if number <= self._faults["handshake_hangs"]:
                connection.recv(1)
                return
            if number <= self._faults["handshake_hangs"] + self._faults["handshake_resets"]:
                return
            time.sleep(self._faults["delay_s"])
            agent = self._connect()
            with agent:
                connection.sendall(b"OK %d\n" % (1024 + number))
                if self._faults["silent"]:
                    connection.recv(1 << 20)
                    time.sleep(3600)
                self._relay(connection, agent)

    def _connect(self) -> socket.socket:
        """The agent's socket, once it listens; the kernel's backlog does this for a real vsock."""
        while True:
            agent = socket.socket(socket.AF_UNIX)
            try:
                agent.connect(self._agent_path)
            except (FileNotFoundError, ConnectionRefusedError):
                agent.close()
                time.sleep(0.002)
            else:
                return agent

    def _relay(self, host: socket.socket, agent: socket.socket) -> None:
        is_first = True
        ends = {host: agent, agent: host}
        while True:
            for end in select.select(list(ends), [], [])[0]:
                data = end.recv(65536)
                if not data:
                    return
                if end is host and is_first:
                    is_first = False
                    if data[0] == _EXEC_FRAME and self._spoil(host):
                        return
                ends[end].sendall(data)

    def _spoil(self, host: socket.socket) -> bool:
        """Applies the faults that wait for EXEC; True when the connection is spoilt."""
        if self._faults["dies_at_exec"]:
            _end("told to die at EXEC")
        lie = bytes.fromhex(self._faults["answer_to_exec"])
        if lie:
            host.sendall(lie)
        return bool(lie) or self._faults["drops_exec"]


def _end(why: str) -> None:
    from mayfly.agent.enclosure import kill_descendants

    print(f"fake machine: {why}", flush=True)  # noqa: T201  its console
    kill_descendants(patience_s=2.0)
    os._exit(0)


def _main() -> None:
    _import_nothing_else()
    vsock_path, mem_mib, faults = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
    agent_path = f"{vsock_path}.agent"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(vsock_path)
    listener.listen(64)
    agent_pid = _start_agent(agent_path, mem_mib)
    from mayfly.agent import kernel

    kernel.become_subreaper()
    agent = os.pidfd_open(agent_pid)
    front = _Front(agent_path, faults)
    ends: list[int | socket.socket] = [0, agent, listener]
    while True:
        ready = select.select(ends, [], [])[0]
        if 0 in ready:
            _end("switched off")
        if agent in ready:
            _end("the agent ended")
        connection = listener.accept()[0]
        threading.Thread(target=front.serve, args=(connection,), daemon=True).start()


if __name__ == "__main__":
    _main()
