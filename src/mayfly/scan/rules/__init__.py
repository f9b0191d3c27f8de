"""Every rule, one file each; the list is explicit so that nothing is read from disk to find them."""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING

from mayfly.scan.facts import CallUse, CommandUse, FileUse, NetUse

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from mayfly.scan.facts import Fact
    from mayfly.scan.rule import Hit, Rule, Scene

    Check = Callable[[Any, Scene], Hit | None]

__all__ = ["all_rules", "rules_for"]

_FILES = (
    "dyn_001_code_from_the_network",
    "dyn_002_encoded_code",
    "dyn_003_computed_code",
    "dyn_004_computed_names",
    "dyn_005_interpreter_insides",
    "dyn_006_code_objects",
    "dyn_007_replaces_builtins",
    "file_001_reads_credentials",
    "file_002_reads_accounts",
    "file_003_writes_system",
    "file_004_deletes_system",
    "file_005_wipes_tree",
    "file_006_raw_devices",
    "file_007_kernel_view",
    "file_008_reads_history",
    "file_009_logs",
    "file_010_other_homes",
    "file_011_lists_system",
    "file_012_reads_system_configuration",
    "file_013_loose_permissions",
    "file_014_encrypts_tree",
    "file_015_changes_itself",
    "file_016_denied_path",
    "file_017_destroys_disks",
    "file_018_alters_logs",
    "file_019_deletes_in_services",
    "imp_001_not_in_image",
    "imp_002_unknown_package",
    "imp_003_lookalike_package",
    "imp_004_denied_import",
    "imp_005_import_not_allowed",
    "lay_001_layer_missing",
    "nat_001_native_code",
    "nat_002_unpickles",
    "nat_003_pickle_payload",
    "nat_004_unsafe_loaders",
    "nat_005_xml_entities",
    "net_001_metadata_service",
    "net_002_private_network",
    "net_003_bare_address",
    "net_004_drop_site",
    "net_005_encoded_host",
    "net_006_sends_secrets",
    "net_007_unknown_host",
    "net_008_scans",
    "net_009_sniffs",
    "net_010_listens",
    "net_011_stores_download",
    "net_012_hidden_service",
    "net_013_denied_host",
    "net_014_personal_data",
    "net_015_open_port",
    "net_016_reports_home",
    "pers_001_schedules",
    "pers_002_services",
    "pers_003_start_up_files",
    "pers_004_accounts",
    "pers_005_installs_packages",
    "pers_006_removes_packages",
    "pers_007_switches_guards_off",
    "pers_008_clears_traces",
    "pers_009_preloads",
    "pers_010_shadows_commands",
    "proc_001_kills_others",
    "proc_002_network_shell",
    "proc_003_command_from_outside",
    "proc_004_runs_download",
    "proc_005_more_rights",
    "proc_006_leaves_the_sandbox",
    "proc_007_detaches",
    "proc_008_controls_the_machine",
    "proc_009_decoded_command",
    "proc_010_foreign_code",
    "proc_011_attack_tools",
    "proc_012_traces_others",
    "proc_013_terminal",
    "proc_014_intruders_tools",
    "rec_001_harvests_environment",
    "rec_002_probes_sandbox",
    "rec_003_surveys_the_machine",
    "rec_004_watches_people",
    "rec_005_lists_accounts",
    "rec_006_dumps_databases",
    "rec_007_lists_processes",
    "res_001_endless_loop",
    "res_002_fork_bomb",
    "res_003_huge_allocation",
    "res_004_endless_growth",
    "res_005_endless_recursion",
    "res_006_fills_disks",
    "res_007_lifts_limits",
    "sec_001_secret_in_source",
    "src_001_unparseable",
    "src_002_bidi_controls",
    "src_003_bare_carriage_return",
    "src_004_compat_letters",
    "src_005_invisible_characters",
    "src_006_unparsed_part",
)
"""The files of this folder, sorted."""


@lru_cache(maxsize=1)
def all_rules() -> tuple[Rule, ...]:
    """Every rule, sorted by id."""
    modules = [import_module(f"mayfly.scan.rules.{name}") for name in _FILES]
    rules: list[Rule] = [module.RULE for module in modules]
    return tuple(sorted(rules, key=lambda rule: rule.id))


_CALLED: dict[type[Fact], str] = {CallUse: "name", CommandUse: "name", FileUse: "op", NetUse: "op"}
_LONGEST_NAME = 256


def rules_for(fact: Fact) -> tuple[tuple[Check, Rule], ...]:
    """The rules that judge a fact, by its type and by what it is called; each after its function."""
    kind = fact.__class__
    called = _CALLED.get(kind)
    return _rules_for(kind, getattr(fact, called)[:_LONGEST_NAME] if called else "")


@lru_cache(maxsize=4096)
def _rules_for(kind: type[Fact], name: str) -> tuple[tuple[Check, Rule], ...]:
    return tuple(
        (rule.check, rule)
        for rule in all_rules()
        if kind in rule.facts and (kind not in rule.only or any(_means(word, name) for word in rule.only[kind]))
    )


def _means(word: str, name: str) -> bool:
    """True when the word is the name; a star at its end or start stands for anything."""
    if word.endswith("*"):
        return name.startswith(word[:-1])
    return name.endswith(word[1:]) if word.startswith("*") else name == word
