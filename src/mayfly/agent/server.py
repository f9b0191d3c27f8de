"""Accepts the host's connections and serves one operation on each."""

from __future__ import annotations

import os

from mayfly.agent import process
from mayfly.agent.bare import accept, socket
from mayfly.agent.connection import Connection
from mayfly.agent.enclosure import CgroupEnclosure, TreeEnclosure, kill_descendants
from mayfly.agent.loop import READ
from mayfly.agent.requests import RequestError
from mayfly.agent.runners import Runners
from mayfly.guest.frames import HOST_CID

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from mayfly.agent.jobs import Jobs
    from mayfly.agent.loop import Loop
    from mayfly.agent.process import Child, Enclosure, Settings
    from mayfly.agent.registry import Contexts
    from mayfly.agent.requests import ExecRequest

__all__ = ["Server"]

_CONNECTIONS_MAX = 256
_SHUT_DOWN_S = 2.0
_RESERVE_BYTES = 40 << 20  # for the kernel and the agent


class Server:
    """The listening socket, the open connections and the runner that waits."""

    def __init__(
        self,
        loop: Loop,
        listener: socket.socket,
        settings: Settings,
        *,
        cgroup_parent: str | None = None,
        memory_bytes: int | None = None,
    ) -> None:
        self.loop = loop
        self.settings = settings
        self._listener = listener
        self._cgroup_parent = cgroup_parent
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        self.memory_bytes = max((memory_bytes or total) - _RESERVE_BYTES, 16 << 20)
        """What a program gets that names no limit."""
        self.greeted = False
        """Whether the machine has been given names of its own."""
        self._connections: set[Connection] = set()
        self._contexts: Contexts | None = None
        self._jobs: Jobs | None = None
        self._enclosures = 0
        self.runners = Runners(loop, settings, self.spawn, memory_bytes or total)
        listener.setblocking(False)
        loop.watch(listener.fileno(), READ, self._accept)

    def _accept(self, _: int) -> None:
        try:
            sock, peer = accept(self._listener)
        except OSError:
            return  # the caller has gone already
        from_host = sock.family != socket.AF_VSOCK or peer[0] == HOST_CID
        if not from_host or len(self._connections) >= _CONNECTIONS_MAX:
            sock.close()
            return
        self._connections.add(Connection(self, sock))

    def closed(self, connection: Connection) -> None:
        """Forgets a connection."""
        self._connections.discard(connection)

    # -- processes -----------------------------------------------------------------------------------------

    def spawn(self, start: Callable[[Enclosure], Child]) -> Child:
        """Starts a process in an enclosure of its own. Raises OSError, and leaves no enclosure then."""
        self._enclosures += 1
        enclosure: Enclosure
        if self._cgroup_parent is None:
            enclosure = TreeEnclosure()
        else:
            enclosure = CgroupEnclosure(self._cgroup_parent, str(self._enclosures))
        try:
            return start(enclosure)
        except BaseException:
            enclosure.remove()
            raise

    def child_for(self, request: ExecRequest, program: process.Program) -> Child:
        """A process for the program: the runner that waits, or a new one. Raises RequestError."""
        try:
            if request.lang == "bash":
                self.runners.stop_preloading()
                return self.spawn(lambda enclosure: process.spawn_bash(self.settings, enclosure, program))
            return self.runners.take(program.source)
        except OSError as error:
            raise RequestError("start_failed", f"cannot start a process: {error}") from None

    # -- what is kept between connections ------------------------------------------------------------------

    @property
    def contexts(self) -> Contexts:
        """The interpreters that keep state."""
        if self._contexts is None:
            from mayfly.agent.registry import Contexts

            self._contexts = Contexts()
        return self._contexts

    @property
    def jobs(self) -> Jobs:
        """The processes that were started by name."""
        if self._jobs is None:
            from mayfly.agent.jobs import Jobs

            self._jobs = Jobs(self)
        return self._jobs

    def shut_down(self) -> None:
        """Kills everything the agent started; for plain mode, where the agent ends before its machine."""
        for connection in list(self._connections):
            connection.close()
        kill_descendants(patience_s=_SHUT_DOWN_S)
