"""A node for a state directory where none answers: on this machine where KVM works, else in the emulated host."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import anyio

from mayfly.config import load_config, node_settings
from mayfly.errors import NodeUnavailableError
from mayfly.host.background import start_until_listening
from mayfly.host.code import code_hash
from mayfly.host.emulated import status, up
from mayfly.host.locks import is_locked, lock_file
from mayfly.host.sockets import listens
from mayfly.images.store import Store
from mayfly.node.parts import jailer_options, node_artefacts
from mayfly.vmm.probe import KvmAnswer, device_problem, probe_kvm

if TYPE_CHECKING:
    from collections.abc import Callable

    from mayfly.host.paths import StatePaths

__all__ = ["ensure_node", "is_current", "kvm_answer"]

_START_DEADLINE_S = 30.0
_LOCK_DEADLINE_S = 60.0


def is_current(health: dict[str, Any]) -> bool:
    """Whether the node that gave this `GET /healthz` answer runs the code that asks."""
    return health.get("code_hash") == code_hash()


def kvm_answer(paths: StatePaths) -> KvmAnswer:
    """Whether this user can run guests with this machine's KVM; boots one where that is not known yet."""
    if problem := device_problem():
        return KvmAnswer(usable=False, reason=problem)
    if os.geteuid() != 0:
        return KvmAnswer(usable=False, reason="starting machines under the jailer needs root, and this is a plain user")
    entries = node_artefacts(Store(paths), verify=True)
    return anyio.run(probe_kvm, jailer_options(paths, entries), entries.boot_source(), paths.root / "kvm.json")


def ensure_node(
    paths: StatePaths,
    on_progress: Callable[[str], None] = lambda _: None,
    *,
    mem_mib: int | None = None,
    idle_exit_s: float = 900.0,
) -> None:
    """Return once a node with this code accepts connections on the state directory's socket.

    Blocking. SetupError when `mayfly setup` has not been run, EmulatedHostError or NodeUnavailableError when the
    node does not start. `on_progress` gets a sentence for each thing that takes time.
    """
    paths.make()
    settings = node_settings(load_config(os.environ, paths=paths))
    if status(paths).up:
        up(paths, on_progress, mem_mib=mem_mib, idle_exit_s=idle_exit_s, node=settings)
        return
    try:
        with lock_file(paths.run / "bringup.lock", timeout_s=_LOCK_DEADLINE_S):
            if listens(paths.node_socket):
                return
            answer = kvm_answer(paths)
            if answer.usable:
                _start_here(paths, on_progress, idle_exit_s)
                return
            on_progress(f"using the emulated host, which needs no KVM and no root: {answer.reason}")
            up(paths, on_progress, mem_mib=mem_mib, idle_exit_s=idle_exit_s, node=settings)
    except TimeoutError as error:
        raise NodeUnavailableError(f"another start of a node is taking too long: {error}") from error


def _start_here(paths: StatePaths, on_progress: Callable[[str], None], idle_exit_s: float) -> None:
    if is_locked(paths.run / "node.lock"):
        raise NodeUnavailableError(f"a node holds {paths.root} but does not answer", hint="wait, or end that process")
    on_progress("starting a node")
    start_until_listening(
        ["-m", "mayfly", "serve", "--socket", str(paths.node_socket), "--idle-exit", str(idle_exit_s)],
        socket=paths.node_socket,
        log=paths.run / "node.log",
        deadline_s=_START_DEADLINE_S,
    )
