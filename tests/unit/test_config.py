"""Four layers of settings, and one sentence for each mistake."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mayfly.config import CONFIG_MAX_BYTES, Config, load_config
from mayfly.errors import ConfigError
from mayfly.host.paths import StatePaths

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {"MAYFLY_HOME": str(tmp_path)}


def test_without_anything_every_setting_has_its_default(env: dict[str, str]) -> None:
    assert load_config(env) == Config()


def test_a_flag_beats_the_environment_which_beats_the_file(tmp_path: Path, env: dict[str, str]) -> None:
    (tmp_path / "mayfly.toml").write_text("max_concurrent = 2\nuid_count = 10\nidle_exit_s = 5\n[limits]\npids = 7\n")
    env |= {"MAYFLY_MAX_CONCURRENT": "3", "MAYFLY_UID_COUNT": "11", "MAYFLY_LIMITS_MEM_MIB": "300"}
    config = load_config(env, flags={"max_concurrent": 4, "node": None, "limits": {"timeout_s": 2.5}})
    assert (config.max_concurrent, config.uid_count, config.idle_exit_s) == (4, 11, 5.0)
    assert (config.limits.pids, config.limits.mem_mib, config.limits.timeout_s) == (7, 300, 2.5)


def test_the_file_may_be_named_by_the_environment(tmp_path: Path, env: dict[str, str]) -> None:
    (tmp_path / "other.toml").write_text('node = "unix:/x"\n')
    env["MAYFLY_CONFIG"] = str(tmp_path / "other.toml")
    assert load_config(env, paths=StatePaths(tmp_path)).node == "unix:/x"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("max_concurent = 2", "did you mean max_concurrent"),
        ("[limits]\nmem_mb = 2", "did you mean mem_mib"),
        ("[limits]\nzzz = 2", "known here: timeout_s"),
        ("max_concurrent = 0", "max_concurrent must be a whole number from 1 to 4,096, not 0"),
        ('max_concurrent = "2"', "max_concurrent must be a whole number"),
        ("pool_loaded = -1", "pool_loaded must be a whole number from 0 to 1,024, not -1"),
        ("pool_primed = 257", "pool_primed must be a whole number from 0 to 256, not 257"),
        ("templates_mib = -1", "templates_mib must be a whole number from 0"),
        ("idle_exit_s = nan", "idle_exit_s must be a number from 0"),
        ("limits = 3", "limits must be an object"),
        ("node = ", "mayfly.toml"),
        ('node = "\ud800"'.encode("utf-8", "surrogatepass"), "UTF-8"),
        (b"x" * (CONFIG_MAX_BYTES + 1), "at most 64 KiB"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_mistake_in_the_file_names_the_file_the_key_and_what_was_expected(
    tmp_path: Path, env: dict[str, str], text: str | bytes, said: str
) -> None:
    (tmp_path / "mayfly.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        load_config(env)
    assert said in str(caught.value)
    assert "mayfly.toml" in str(caught.value)


def test_a_mistake_in_the_environment_names_the_variable(env: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"MAYFLY_LIMITS_TIMEOUT_S must be a number from 0\.1 to 3,600, not 'soon'"):
        load_config(env | {"MAYFLY_LIMITS_TIMEOUT_S": "soon"})


def test_variables_that_are_no_settings_are_left_alone(env: dict[str, str]) -> None:
    assert load_config(env | {"MAYFLY_SHARED_DATA": "x", "MAYFLY_NODES": "x"}) == Config()


def test_a_named_file_that_is_not_there_is_an_error(env: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        load_config(env | {"MAYFLY_CONFIG": "/nonexistent/mayfly.toml"})


def test_a_directory_in_the_file_s_place_is_an_error(tmp_path: Path, env: dict[str, str]) -> None:
    (tmp_path / "mayfly.toml").mkdir()
    with pytest.raises(ConfigError, match="cannot read"):
        load_config(env)


@given(st.dictionaries(st.sampled_from(Config.__struct_fields__), st.text(max_size=20).filter(lambda t: "\0" not in t)))
def test_any_environment_gives_a_configuration_or_a_config_error(values: dict[str, Any]) -> None:
    env = {"MAYFLY_HOME": "/nonexistent"} | {f"MAYFLY_{name.upper()}": text for name, text in values.items()}
    try:
        assert isinstance(load_config(env), Config)
    except ConfigError as error:
        assert error.field is not None  # noqa: PT017 - both outcomes are right


def test_policies_are_names_with_commas_between_them_in_the_environment(tmp_path: Path) -> None:
    config = load_config({"HOME": str(tmp_path), "MAYFLY_POLICIES": "default,team"})
    assert config.policies == ("default", "team")
