"""Policies: what a verdict is made of, as data; read from TOML or built in."""

from __future__ import annotations

import difflib
import hashlib
import re
import tomllib
from functools import cached_property
from typing import Annotated, Any, Literal

import msgspec

from mayfly.errors import InvalidRequestError
from mayfly.model import Severity  # noqa: TC001 - msgspec needs it at run time

__all__ = ["Names", "PatternRule", "Policy", "builtin_policy", "parse_policy", "policy_names"]

_MAX_BYTES = 256 * 1024
_MAX_ITEMS = 10_000
_SEVERITIES = ("low", "medium", "high", "critical")
_LAYERS_IDS = ("GUARDDOG-", "HEXORA-")
ReviewAction = Literal["allow", "deny", "ask"]
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
_List = Annotated[tuple[_Name, ...], msgspec.Meta(max_length=_MAX_ITEMS)]


class Names(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is allowed and what is denied. `only`: whatever `allow` does not name is denied.

    Paths and hosts may hold `*`; a host also stands for its subdomains, an import for its submodules.
    """

    allow: _List = ()
    deny: _List = ()
    only: bool = False


class PatternRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A rule of the operator's own: a regular expression that is searched line by line in the source."""

    id: Annotated[str, msgspec.Meta(pattern=r"^[A-Z][A-Z0-9]*(-[A-Z0-9]+)+$", max_length=64)]
    pattern: Annotated[str, msgspec.Meta(min_length=1, max_length=1000)]
    message: Annotated[str, msgspec.Meta(min_length=1, max_length=400)]
    severity: Severity = "medium"
    cwe: Annotated[str, msgspec.Meta(pattern=r"^CWE-[0-9]{1,5}$")] | None = None
    languages: tuple[Literal["python", "bash", "javascript", "typescript"], ...] = ()
    """None named: every language."""


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, dict=True):
    """How findings become a verdict.

    `severity` moves rules (`off` silences one); a finding at `deny_at` or above denies, at `review_at` or above asks
    for review. `review` says what the node does then: `allow` (in a VM narrowed to the capabilities that were seen),
    `deny`, or `ask` (the caller names the findings it approves). `enforce` false: everything is recorded and nothing
    refused, except what cannot be parsed.
    """

    name: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
    severity: Annotated[dict[str, Severity | Literal["off"]], msgspec.Meta(max_length=_MAX_ITEMS)] = {}
    deny_at: Severity = "high"
    review_at: Severity = "medium"
    review: ReviewAction = "allow"
    enforce: bool = True
    imports: Names = Names()
    paths: Names = Names()
    hosts: Names = Names()
    pattern: Annotated[tuple[PatternRule, ...], msgspec.Meta(max_length=200)] = ()
    layers: tuple[Literal["guarddog", "hexora"], ...] = ()
    """Other scanners whose findings count as well, where they are installed."""

    @cached_property
    def digest(self) -> str:
        """Twelve hexadecimal digits of its content."""
        return hashlib.sha256(msgspec.json.encode(self, order="deterministic")).hexdigest()[:12]

    @cached_property
    def version(self) -> str:
        """Name and digest, as receipts hold it."""
        return f"{self.name}@{self.digest}"


def policy_names() -> tuple[str, ...]:
    """The built-in policies' names, sorted."""
    from mayfly.scan.policies import BUILTIN

    return tuple(sorted(BUILTIN))


def builtin_policy(name: str) -> Policy:
    """The built-in policy of this name. InvalidRequestError (field `policy`) when there is none."""
    from mayfly.scan.policies import BUILTIN

    if (found := BUILTIN.get(name)) is None:
        known = ", ".join(sorted(BUILTIN))
        raise InvalidRequestError(f"no policy {name[:64]!r}; known: {known}", field="policy")
    return found


def parse_policy(data: bytes) -> Policy:
    """The policy in a TOML file's bytes; `extends` names the built-in it starts from (else `default`).

    InvalidRequestError (field: the key's path) for what is not TOML, unknown keys, rules and values, and patterns
    that are no regular expression.
    """
    if len(data) > _MAX_BYTES:
        raise InvalidRequestError(f"a policy has at most {_MAX_BYTES} bytes", field="policy")
    try:
        table = tomllib.loads(data.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise InvalidRequestError(f"the policy is not TOML: {error}", field="policy") from error
    base = table.pop("extends", "default")
    if not isinstance(base, str):
        raise InvalidRequestError("`extends` names a built-in policy", field="policy.extends")
    _refuse_unknown(table, Policy, "policy")
    _check_severities(table)
    merged = _merge(msgspec.to_builtins(builtin_policy(base)), table)
    try:
        policy = msgspec.convert(merged, Policy)
    except msgspec.ValidationError as error:
        where = re.search(r"at `\$\.?(.*)`$", str(error))
        field = f"policy.{where[1]}" if where and where[1] else "policy"
        raise InvalidRequestError(f"the policy does not fit: {error}", field=field) from error
    _check_rules(policy)
    _check_patterns(policy)
    return policy


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over` laid on `base`: tables key by key, everything else replaced."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(value, dict) and isinstance(below, dict) else value
    return merged


def _refuse_unknown(table: dict[str, Any], kind: type[msgspec.Struct], where: str) -> None:
    nested = {"imports": Names, "paths": Names, "hosts": Names}
    for key, value in table.items():
        if key not in kind.__struct_fields__:
            raise _unknown("key", key, [*kind.__struct_fields__, *(["extends"] if kind is Policy else [])], where)
        if kind is Policy and key in nested and isinstance(value, dict):
            _refuse_unknown(value, nested[key], f"{where}.{key}")
        if kind is Policy and key == "pattern" and isinstance(value, list):
            for number, item in enumerate(value):
                if isinstance(item, dict):
                    _refuse_unknown(item, PatternRule, f"{where}.pattern[{number}]")


def _unknown(what: str, name: str, known: list[str], where: str) -> InvalidRequestError:
    close = difflib.get_close_matches(name[:100], known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else None
    return InvalidRequestError(f"unknown {what} {name[:100]!r} in the policy", field=f"{where}.{name[:100]}", hint=hint)


def _check_severities(table: dict[str, Any]) -> None:
    moved = table.get("severity")
    for rule, severity in moved.items() if isinstance(moved, dict) else ():
        _check_severity(f"severity.{rule[:64]}", severity, (*_SEVERITIES, "off"))
    for key in ("deny_at", "review_at"):
        if key in table:
            _check_severity(key, table[key], _SEVERITIES)


def _check_severity(key: str, severity: object, known: tuple[str, ...]) -> None:
    if severity not in known:
        said = f"no severity {str(severity)[:64]!r} for {key} in the policy; known: {', '.join(known)}"
        raise InvalidRequestError(said, field=f"policy.{key}")


def _check_rules(policy: Policy) -> None:
    from mayfly.scan.rules import all_rules

    known = [rule.id for rule in all_rules()] + [own.id for own in policy.pattern]
    for rule_id in policy.severity:
        if rule_id not in known and not rule_id.startswith(_LAYERS_IDS):
            raise _unknown("rule", rule_id, known, "policy.severity")


def _check_patterns(policy: Policy) -> None:
    for number, own in enumerate(policy.pattern):
        try:
            re.compile(own.pattern)
        except (re.error, RecursionError, OverflowError) as error:
            raise InvalidRequestError(
                f"pattern {own.id} is not a regular expression: {error}", field=f"policy.pattern[{number}].pattern"
            ) from error
        if own.id.startswith(("MF-", *_LAYERS_IDS)):
            start = own.id.partition("-")[0]
            raise InvalidRequestError(
                f"pattern {own.id}: ids that start with {start}- are not an operator's to give",
                field=f"policy.pattern[{number}].id",
            )
