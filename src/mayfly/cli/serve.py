"""`mayfly serve`: this machine's node, on a Unix socket and, with a token, on TCP."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from mayfly.config import Config
    from mayfly.host.paths import StatePaths
    from mayfly.server.main import Listen

__all__ = ["serve"]


@click.command(short_help="Serve this machine's microVMs over HTTP.")
@click.option("--socket", "unix_socket", type=click.Path(path_type=Path), help="Unix socket; by default the state's.")
@click.option("--socket-group", metavar="NAME", help="Group whose members may use the socket.")
@click.option("--tcp", metavar="HOST:PORT", help="Listen there too; needs --token-file.")
@click.option("--token-file", type=click.Path(path_type=Path), help="File with the bearer token that TCP asks for.")
@click.option("--pool-loaded", type=int, metavar="N", help="Restored microVMs of each size that wait; 0 to 1024.")
@click.option("--pool-primed", type=int, metavar="N", help="Running and greeted ones that wait; 0 to 256.")
@click.option("--idle-exit", type=float, metavar="SECONDS", default=0.0, help="End when idle for so long (0: never).")
def serve(
    unix_socket: Path | None,
    socket_group: str | None,
    tcp: str | None,
    token_file: Path | None,
    idle_exit: float,
    **pool: int | None,
) -> int:
    """Serve programs' execution over HTTP until SIGTERM or SIGINT. Needs root and a working KVM."""
    from mayfly.config import load_config
    from mayfly.host.paths import state_paths

    if not 0 <= idle_exit < float("inf"):
        raise click.BadParameter("must be 0 or a number of seconds", param_hint="--idle-exit")
    address = _tcp_address(tcp) if tcp is not None else None
    token = _token(token_file) if token_file is not None else None
    if address is not None and token is None:
        raise click.UsageError("--tcp needs --token-file: without a token, whoever reaches the port runs programs")
    gid = _group_id(socket_group) if socket_group is not None else None
    paths = state_paths(os.environ)
    config = load_config(os.environ, paths=paths, flags=pool)

    from mayfly.server.main import Listen

    listen = Listen(
        unix_socket=Path(os.path.abspath(unix_socket)) if unix_socket else paths.node_socket,  # noqa: PTH100
        socket_mode=0o600 if gid is None else 0o660,
        socket_gid=gid,
        tcp=address,
        token=token,
        idle_exit_s=idle_exit,
    )
    _serve(paths, config, listen)
    return 0


def _serve(paths: StatePaths, config: Config, listen: Listen) -> None:
    from mayfly.host.code import code_hash
    from mayfly.host.eventloop import run
    from mayfly.node.assemble import NodeOptions
    from mayfly.observe.log import configure_log
    from mayfly.server.main import serve_node

    configure_log()
    shared = listen.socket_gid is not None or listen.tcp is not None
    options = NodeOptions(
        kind="kvm",
        code_hash=code_hash(),
        max_concurrent=config.max_concurrent,
        uid_base=config.uid_base,
        uid_count=config.uid_count,
        pool_loaded=config.pool_loaded,
        pool_primed=config.pool_primed,
        templates_mib=config.templates_mib,
        policies=config.policies or (("default", "strict") if shared else None),
    )
    run(serve_node(paths, options, listen))


def _tcp_address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or not 0 < int(port[:6]) < 65536:
        raise click.BadParameter(f"must be HOST:PORT, not {text!r}", param_hint="--tcp")
    return host, int(port)


def _token(path: Path) -> str:
    from mayfly.client.address import read_token

    token = read_token(path)
    if token is None:
        raise click.BadParameter(f"{path} does not exist", param_hint="--token-file")
    return token


def _group_id(name: str) -> int:
    import grp

    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise click.BadParameter(f"there is no group {name!r}", param_hint="--socket-group") from None
