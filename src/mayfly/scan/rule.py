"""The form of a rule, and what a rule may look at.

A rule is a value: who it is (id, title, rationale, CWE), how grave it is, one example that it must flag and one near
miss that it must not, and a pure function from a fact to a `Hit` or None.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from mayfly.scan.layers.popular import NOBODY

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from mayfly.model import Severity
    from mayfly.scan.facts import Fact, ScanLanguage
    from mayfly.scan.layers.popular import Popular
    from mayfly.scan.manifest import Manifest
    from mayfly.scan.policy import Policy

__all__ = ["Confidence", "Hit", "Rule", "Scene"]

Confidence = Literal["low", "medium", "high"]


@dataclass(frozen=True, slots=True)
class Hit:
    """A rule says yes. `severity` and `confidence` replace the rule's own when given."""

    message: str
    severity: Severity | None = None
    confidence: Confidence | None = None


@dataclass(frozen=True, slots=True)
class Scene:
    """What a rule may ask about besides the fact: the policy, the image, the language, and who is well known."""

    policy: Policy
    manifest: Manifest | None
    lang: ScanLanguage
    popular: Popular = NOBODY
    kinds: dict[int, list[tuple[str, str]]] = field(default_factory=dict, compare=False)
    """Of each fact's paths or hosts: of what kind, and the text; by the fact's `id`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule. `examples` and `near_misses` map a language to a program.

    `only` narrows a type of fact to what is called so: the names of calls and commands, the operations of file and
    network uses. A star at a name's start or end stands for anything. A type that `only` leaves out is judged whole.
    """

    id: str
    title: str
    rationale: str
    severity: Severity
    facts: tuple[type[Fact], ...]
    check: Callable[[Any, Scene], Hit | None]
    examples: Mapping[str, str]
    near_misses: Mapping[str, str]
    cwe: str | None = None
    confidence: Confidence = "high"
    capabilities: tuple[str, ...] = ()
    languages: tuple[str, ...] = field(default=("python", "bash", "javascript"))
    only: Mapping[type[Fact], Collection[str]] = field(default_factory=dict)
