"""Finding a node, and starting one where none answers.

Order: the address that was given (argument, flag, `MAYFLY_NODE`, `mayfly.toml`) and nothing else; then the node of
this state directory, the system's node, and at last a node that is started here.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import anyio.to_thread

from mayfly.client.address import NodeAddress, parse_address, read_token
from mayfly.client.core import NodeClient
from mayfly.errors import NodeError, NodeUnavailableError, NodeVersionError

if TYPE_CHECKING:
    from collections.abc import Callable

    from mayfly.config import Config
    from mayfly.host.paths import StatePaths

__all__ = ["SYSTEM_SOCKET", "find_node", "running_node"]

SYSTEM_SOCKET = Path("/run/mayfly/node.sock")
"""Where the node of the whole machine listens, for the members of its group."""


async def find_node(
    node: str | NodeAddress | None,
    *,
    config: Config,
    paths: StatePaths,
    on_progress: Callable[[str], None] | None = None,
) -> NodeClient:
    """A client of a node that has answered and speaks this client's version.

    `on_progress` hears what is being started, a line at a time and from another thread. NodeUnavailableError,
    NodeVersionError, and, where one must be started, the errors of that (SetupError, HostError).
    """
    if chosen := node or config.node:
        client = NodeClient(_chosen_address(chosen, config))
        await client.health()
        return client
    own = NodeClient(NodeAddress(unix_socket=paths.node_socket, token=read_token(paths.node_token)))
    current = await _is_current(own)
    if current:
        return own
    if current is None and (system := await _system_node(on_progress)) is not None:
        return system
    return await _start(paths, config, on_progress)


async def running_node(config: Config, paths: StatePaths) -> NodeClient:
    """A client of the node that was named, else of one that runs already; nothing is started.

    NodeUnavailableError when none answers.
    """
    if config.node is not None:
        client = NodeClient(_chosen_address(config.node, config))
        await client.health()
        return client
    own = NodeClient(NodeAddress(unix_socket=paths.node_socket, token=read_token(paths.node_token)))
    try:
        await own.health()
    except NodeUnavailableError:
        if (system := await _system_node(None)) is not None:
            return system
        raise NodeUnavailableError("no node is running", hint="`mayfly run` starts one when it needs it") from None
    return own


def _chosen_address(chosen: str | NodeAddress, config: Config) -> NodeAddress:
    if isinstance(chosen, NodeAddress):
        return chosen
    token = None
    if config.node_token_file is not None:
        token = read_token(Path(config.node_token_file))
        if token is None:
            raise NodeUnavailableError(f"the token file {config.node_token_file} does not exist", retryable=False)
    return parse_address(chosen, token=token)


async def _is_current(own: NodeClient) -> bool | None:
    """Whether the state directory's node runs this very code (if not, it is to be replaced); None when none answers."""
    try:
        health = await own.health()
    except NodeVersionError:
        return False
    except NodeError:
        return None
    # As `mayfly.node.bringup.is_current`, without loading all that starting a node takes.
    from mayfly.host.code import code_hash

    return bool(health.get("code_hash") == code_hash())


async def _system_node(on_progress: Callable[[str], None] | None) -> NodeClient | None:
    system = NodeClient(NodeAddress(unix_socket=SYSTEM_SOCKET))
    try:
        await system.health()
    except NodeUnavailableError as error:
        if isinstance(error.__cause__, PermissionError) and on_progress is not None:
            on_progress(f"the system's node at {SYSTEM_SOCKET} is for the members of its group, and you are none")
        return None
    return system


async def _start(paths: StatePaths, config: Config, on_progress: Callable[[str], None] | None) -> NodeClient:
    from mayfly.node.bringup import ensure_node

    ensure = partial(
        ensure_node,
        paths,
        on_progress or (lambda _: None),
        mem_mib=config.emulated_mem_mib,
        idle_exit_s=config.idle_exit_s,
    )
    await anyio.to_thread.run_sync(ensure, abandon_on_cancel=True)
    started = NodeClient(NodeAddress(unix_socket=paths.node_socket, token=read_token(paths.node_token)))
    await started.health()
    return started
