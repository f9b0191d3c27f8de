"""Settings, read once and passed down: flag > environment > `mayfly.toml` > default.

The file is `$MAYFLY_CONFIG`, else `mayfly.toml` in the state directory, where that exists. A key `limits.mem_mib` is
`MAYFLY_LIMITS_MEM_MIB` in the environment. Environment variables that are no setting are left alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from mayfly.errors import ConfigError
from mayfly.model import Limits
from mayfly.validation import convert_values

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mayfly.host.paths import StatePaths

__all__ = ["CONFIG_MAX_BYTES", "Config", "load_config", "node_settings"]

CONFIG_MAX_BYTES = 64 * 1024
"""The largest `mayfly.toml` that is read."""


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Every setting, with its default and range."""

    node: str | None = None
    """Where the node is: `unix:PATH` or `http://HOST:PORT`; None looks for one and starts one."""
    node_token_file: str | None = None
    """File that holds the bearer token for `node`."""
    idle_exit_s: Annotated[float, msgspec.Meta(ge=0, le=30 * 24 * 3600)] = 900.0
    """A node that a client started ends after this long without work; 0 keeps it for ever."""
    emulated_mem_mib: Annotated[int, msgspec.Meta(ge=1024, le=65536)] | None = None
    """Memory of the emulated host; None chooses by the machine's memory."""
    max_concurrent: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 8
    """Executions and sandboxes that a node has at once; more wait or are refused."""
    uid_base: Annotated[int, msgspec.Meta(ge=1000, le=2**31 - 65536)] = 900_000
    """First of the user ids that VMMs get, each its own."""
    uid_count: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 4096
    pool_loaded: Annotated[int, msgspec.Meta(ge=0, le=1024)] = 2
    """Clones of each wanted size that wait restored, not yet running, 7 MiB each; cut to half of the node's memory."""
    pool_primed: Annotated[int, msgspec.Meta(ge=0, le=256)] = 1
    """Clones of each wanted size that wait running and greeted; cut to half of the node's memory."""
    templates_mib: Annotated[int, msgspec.Meta(ge=0, le=1_048_576)] = 4096
    """Disk space for templates; those used longest ago go first, those in use stay."""
    policies: tuple[Annotated[str, msgspec.Meta(min_length=1, max_length=64)], ...] | None = None
    """Policies that callers of `mayfly serve` may ask for; None: all on a socket of the owner's alone, and `default`
    and `strict` on one that others may use."""
    limits: Limits = Limits()
    """What an execution gets where it does not say."""


def node_settings(config: Config) -> dict[str, int]:
    """The settings that the node in the emulated host takes from outside."""
    return {
        "pool_loaded": config.pool_loaded,
        "pool_primed": config.pool_primed,
        "templates_mib": config.templates_mib,
    }


def load_config(
    env: Mapping[str, str], *, paths: StatePaths | None = None, flags: Mapping[str, Any] | None = None
) -> Config:
    """Merge the four layers; ConfigError names the layer, the key and what was expected.

    `flags` holds the options that were given on the command line, under the names of the fields; None is "not
    given". `paths` saves finding the state directory again.
    """
    file = _file_layer(env, paths)
    surroundings = _environment_layer(env)
    given = {key: value for key, value in (flags or {}).items() if value is not None}
    merged = _merged(_merged(file, surroundings), given)
    return convert_values(merged, Config, error_class=ConfigError, strict=False)


def _file_layer(env: Mapping[str, str], paths: StatePaths | None) -> dict[str, Any]:
    chosen = env.get("MAYFLY_CONFIG")
    if chosen:
        path = Path(chosen)
    else:
        from mayfly.host.paths import state_paths

        path = (paths or state_paths(env)).root / "mayfly.toml"
    text = _read_bounded(path, must_exist=bool(chosen))
    if text is None:
        return {}
    import tomllib

    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {error}") from None
    _checked(values, f"{path}: ", strict=True)
    return values


def _read_bounded(path: Path, *, must_exist: bool) -> str | None:
    try:
        with path.open("rb") as stream:
            data = stream.read(CONFIG_MAX_BYTES + 1)
    except FileNotFoundError:
        if must_exist:
            raise ConfigError(f"MAYFLY_CONFIG names {path}, which does not exist", field="MAYFLY_CONFIG") from None
        return None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    if len(data) > CONFIG_MAX_BYTES:
        raise ConfigError(f"{path} must have at most {CONFIG_MAX_BYTES // 1024} KiB")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} must be UTF-8 text (byte {error.start} is not)") from None


def _environment_layer(env: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    limits: dict[str, Any] = {}
    for name in Config.__struct_fields__:
        if name != "limits" and (text := env.get(f"MAYFLY_{name.upper()}")):
            values[name] = text.split(",") if name == "policies" else text
            _checked({name: values[name]}, "environment, MAYFLY_", strict=False)
    for name in Limits.__struct_fields__:
        if text := env.get(f"MAYFLY_LIMITS_{name.upper()}"):
            limits[name] = text
            _checked({"limits": {name: text}}, "environment, MAYFLY_", strict=False)
    return values | ({"limits": limits} if limits else {})


def _checked(values: dict[str, Any], where: str, *, strict: bool) -> None:
    """Check one layer by itself, so that the error says where the value stands."""
    try:
        convert_values(values, Config, error_class=ConfigError, strict=strict)
    except ConfigError as error:
        shown = error.message
        if where.endswith("MAYFLY_") and error.field and shown.startswith(error.field):
            shown = error.field.upper().replace(".", "_") + shown.removeprefix(error.field)
        raise ConfigError(where + shown, field=error.field, hint=error.hint) from None


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    limits = {**below.get("limits", {}), **above.get("limits", {})}
    return {**below, **above} | ({"limits": limits} if limits else {})
