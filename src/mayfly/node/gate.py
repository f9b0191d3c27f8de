"""The scan's verdict in force: which policies there are, whether a program runs, and how narrow its machine is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import structlog

from mayfly.errors import InvalidRequestError, SetupError
from mayfly.model import Shape, image_for
from mayfly.scan.decision import decide
from mayfly.scan.policy import builtin_policy, parse_policy, policy_names

if TYPE_CHECKING:
    from collections.abc import Container, Mapping
    from pathlib import Path

    from mayfly.model import ExecutionRequest, Verdict
    from mayfly.node.scanner import Scanner
    from mayfly.scan.decision import Decision
    from mayfly.scan.facts import ScanLanguage
    from mayfly.scan.manifest import Manifest
    from mayfly.scan.policy import Policy

__all__ = ["Gate", "Passage", "load_policies"]

_log = structlog.get_logger("mayfly.node")

_POLICY_MAX_BYTES = 256 * 1024
_POLICIES_MAX = 100
_FEW_PIDS = 32
"""Enough for an interpreter with the threads that libraries start by themselves."""
_NEEDS_PIDS = frozenset({"proc", "threads", "native", "dynamic-code"})


class Passage(msgspec.Struct, frozen=True, kw_only=True):
    """What the gate says of one request. Without `run`, `missing` names the findings that may be approved."""

    verdict: Verdict
    run: bool
    missing: tuple[str, ...]
    shape: Shape


class Gate:
    """Scans requests under the policies that the operator allows, against what their image holds.

    `manifest` is the image `python`'s, `images` has those of all others.
    """

    def __init__(
        self,
        scanner: Scanner,
        manifest: Manifest,
        policies: Mapping[str, Policy],
        images: Mapping[str, Manifest] | None = None,
    ) -> None:
        self._scanner = scanner
        self._policies = dict(policies)
        self._manifests = {"python": manifest, **(images or {})}

    def manifest(self, image: str) -> Manifest:
        """What an image holds; InvalidRequestError with the images there are."""
        manifest = self._manifests.get(image)
        if manifest is None:
            known = ", ".join(sorted(self._manifests))
            raise InvalidRequestError(
                f"image must be one of {known}, not {image!r}",
                field="image",
                hint="`mayfly image build` makes others; a node looks for them when it starts",
            )
        return manifest

    @property
    def images(self) -> tuple[str, ...]:
        """Names of the images there are."""
        return tuple(sorted(self._manifests))

    def policy(self, name: str) -> Policy:
        """A policy by name; InvalidRequestError with the names there are."""
        policy = self._policies.get(name)
        if policy is None:
            known = ", ".join(sorted(self._policies))
            raise InvalidRequestError(f"policy must be one of {known}, not {name!r}", field="policy")
        return policy

    async def pass_through(self, request: ExecutionRequest) -> Passage:
        """Scan, decide, and narrow. Never allows what could not be scanned."""
        verdict, decision = await self.judge(
            request.code,
            request.lang,
            policy=request.policy,
            image=image_for(request.lang, request.image),
            approved=request.approve,
        )
        return Passage(
            verdict=verdict, run=decision.run, missing=decision.missing, shape=_shape(request, verdict, decision)
        )

    async def judge(
        self, code: str, lang: ScanLanguage, *, policy: str, image: str = "python", approved: Container[str] = ()
    ) -> tuple[Verdict, Decision]:
        """Scan and decide, for code that is to run in `image`. Never allows what could not be scanned."""
        chosen = self.policy(policy)
        verdict = await self._scanner.scan(code.encode("utf-8", "surrogatepass"), lang, chosen, self.manifest(image))
        return verdict, decide(verdict, chosen, approved)


def _shape(request: ExecutionRequest, verdict: Verdict, decision: Decision) -> Shape:
    """The machine without what the program shows no need of; a program that was let through on review gets no more.

    Shell programs start processes by nature. A caller's own limit is never raised.
    """
    limits, narrowed = request.limits, []
    pids = limits.pids
    if request.lang != "bash" and not _NEEDS_PIDS & set(verdict.capabilities) and pids > _FEW_PIDS:
        pids = _FEW_PIDS
        narrowed.append("proc")
    if decision.narrowed and "net" in verdict.capabilities:
        narrowed.append("net")
    disk = limits.scratch_mib > 0
    return Shape(pids=pids, mem_mib=limits.mem_mib, scratch_disk=disk, narrowed_by=tuple(narrowed))


def load_policies(directory: Path, allowed: tuple[str, ...] | None) -> dict[str, Policy]:
    """The built-in policies and the operator's (`NAME.toml` in `directory`), as far as `allowed` names them.

    `allowed` None allows all. SetupError when an allowed file cannot be used: a node must not start with a policy
    that its operator believes to be another.
    """
    policies = {name: builtin_policy(name) for name in policy_names()}
    files = sorted(directory.glob("*.toml"))[:_POLICIES_MAX] if directory.is_dir() else []
    for file in files:
        try:
            with file.open("rb") as stream:
                policy = parse_policy(stream.read(_POLICY_MAX_BYTES + 1))
        except (OSError, InvalidRequestError) as error:
            raise SetupError(f"policy {file} cannot be used: {error}", field="policy") from error
        if policy.name != file.stem:
            raise SetupError(f"policy {file} calls itself {policy.name!r}", hint="name the file after the policy")
        policies[policy.name] = policy
    if allowed is None:
        return policies
    missing = set(allowed) - set(policies)
    if missing:
        raise SetupError(f"no policy is called {min(missing)!r}", field="policies")
    return {name: policies[name] for name in allowed}
