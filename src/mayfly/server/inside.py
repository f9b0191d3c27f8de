"""The node as the emulated host starts it, from the configuration on its code drive."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from mayfly.host.eventloop import run
from mayfly.host.paths import StatePaths
from mayfly.node.assemble import NodeOptions
from mayfly.observe.log import configure_log
from mayfly.server.main import Listen, serve_node

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["NODE_PORT", "STATE", "serve_inside"]

NODE_PORT = 8080
STATE = Path("/var/lib/mayfly")
_CONFIG_MAX_BYTES = 64 * 1024
_HOST_RESERVE_MIB = 512
_SETTINGS = ("pool_loaded", "pool_primed", "templates_mib")
_AGENT_DEADLINE_S = 60.0
_SCAN_DEADLINE_S = 30.0
"""An emulated processor is some 20 times slower than those that these deadlines are usually for."""


def serve_inside(config_file: str, on_ready: Callable[[], None]) -> None:
    """Serve with the token, idle time and memory that the supervisor wrote."""
    configure_log()
    with Path(config_file).open("rb") as file:
        config: dict[str, Any] = msgspec.json.decode(file.read(_CONFIG_MAX_BYTES))
    mem_mib = int(config["mem_mib"]) - _HOST_RESERVE_MIB
    settings = {name: int(config["node"][name]) for name in _SETTINGS if name in config["node"]}
    options = NodeOptions(
        kind="emulated",
        code_hash=str(config["code_hash"]),
        mem_mib=mem_mib,
        max_concurrent=max(1, min(8, mem_mib // 160)),
        agent_deadline_s=_AGENT_DEADLINE_S,
        scan_deadline_s=_SCAN_DEADLINE_S,
        verify=False,
        console=bool(config["guest_console"]),
    )
    options = msgspec.structs.replace(options, **settings)
    listen = Listen(
        tcp=("0.0.0.0", NODE_PORT),  # noqa: S104 - only the forwarded port leads here, and it needs the token
        token=str(config["token"]),
        idle_exit_s=float(config["idle_exit_s"]),
    )
    run(serve_node(StatePaths(STATE), options, listen, on_ready=on_ready))
