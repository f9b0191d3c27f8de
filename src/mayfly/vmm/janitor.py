"""A process that outlives its node only to clean up after it: machines must not go on when their node was killed.

`python -m mayfly.vmm.janitor OPTIONS` waits for the end of its standard input, which the node holds open and the
kernel closes however the node ends. Then it kills and removes every machine of that node, unless another node has
taken over, which does the same at its start. It imports nothing before that moment: waiting costs next to nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from mayfly.vmm.jail import JailerOptions

__all__ = ["janitor", "main"]

_TAKEN_OVER_S = 5.0
"""Who still has the lock after so long is another node; a dead one's may be released after its end of the pipe."""
_LOOK_S = 0.05
_TRIES = 6
"""So often the whole is tried: on a busy machine a killed process may take longer to go than one try waits."""


@contextlib.contextmanager
def janitor(options: JailerOptions, lock: Path, files: Sequence[Path] = ()) -> Iterator[None]:
    """Have a janitor for these jails while the block runs.

    `lock` is the file that a live node holds; `files` are removed as well, such as the node's socket.
    """
    from mayfly.host.process import spawn

    described = {
        "jailer": str(options.jailer),
        "firecracker": str(options.firecracker),
        "jails": str(options.jails),
        "cgroup_version": options.cgroups.version,
        "cgroup_mounts": {name: str(path) for name, path in options.cgroups.mounts.items()},
        "parent_cgroup": options.parent_cgroup,
        "lock": str(lock),
        "files": [str(file) for file in files],
    }
    reading, writing = os.pipe2(os.O_CLOEXEC)
    try:
        command = [sys.executable, "-S", "-m", "mayfly.vmm.janitor", json.dumps(described)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        child = spawn(command, stdin=reading, env=environment)
    except BaseException:
        os.close(writing)
        raise
    finally:
        os.close(reading)
    try:
        yield
    finally:
        child.kill()  # all is clean already
        os.waitid(os.P_PIDFD, child.pidfd, os.WEXITED)
        os.close(writing)
        child.close()


def main() -> int:
    """Wait, then clean. Exit code 1 when something could not be removed."""
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    while os.read(0, 64):
        pass
    described = json.loads(sys.argv[1])

    from pathlib import Path

    from mayfly.host.cgroups import CgroupLayout
    from mayfly.vmm.jail import JailerOptions

    lock = _lock(Path(described["lock"]))
    if lock is None:
        return 0  # another node serves these jails by now
    mounts = {name: Path(path) for name, path in described["cgroup_mounts"].items()}
    options = JailerOptions(
        jailer=Path(described["jailer"]),
        firecracker=Path(described["firecracker"]),
        jails=Path(described["jails"]),
        cgroups=CgroupLayout(described["cgroup_version"], mounts),
        parent_cgroup=described["parent_cgroup"],
    )
    try:
        return _clean(options, [Path(file) for file in described["files"]])
    finally:
        if lock >= 0:
            os.close(lock)


def _lock(path: Path) -> int | None:
    """The node's lock, so that no other begins meanwhile; -1 where it has gone, None when another node has it."""
    import time

    from mayfly.host.locks import try_lock

    until = time.monotonic() + _TAKEN_OVER_S
    while True:
        try:
            lock = try_lock(path)
        except OSError:
            return -1  # the state directory is gone, so that no node can serve it; its machines are not
        if lock is not None or time.monotonic() > until:
            return lock
        time.sleep(_LOOK_S)


def _clean(options: JailerOptions, files: Sequence[Path]) -> int:
    import anyio

    from mayfly.errors import HostError
    from mayfly.vmm.leftovers import remove_leftovers, remove_parents

    for _ in range(_TRIES):
        try:
            anyio.run(remove_leftovers, options)
        except HostError as error:
            sys.stderr.write(f"mayfly: {error}\n")
        else:
            remove_parents(options)
            for file in files:
                file.unlink(missing_ok=True)
            return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
