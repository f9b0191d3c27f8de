"""MF-NAT-004."""

from __future__ import annotations

from mayfly.scan.facts import LoadUse
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]


def _check(fact: LoadUse, _scene: Scene) -> Hit | None:
    if fact.format not in ("yaml", "jsonpickle", "keras", "serialize"):
        return None
    return Hit(f"loads any object from {fact.format}", severity="high" if "net" in fact.value.taints else None)


RULE = Rule(
    id="MF-NAT-004",
    title="Loads objects from YAML, JSON or a saved model",
    rationale="Loaders that build any object run whatever the text or the file asks for.",
    severity="medium",
    cwe="CWE-502",
    confidence="high",
    capabilities=("deserialise",),
    facts=(LoadUse,),
    check=_check,
    examples={
        "python": "import yaml\nyaml.load(open('a'), Loader=yaml.Loader)",
        "javascript": "require('node-serialize').unserialize(x)",
    },
    near_misses={
        "python": "import yaml\nyaml.safe_load(open('a'))",
        "javascript": "JSON.parse(x)",
    },
    languages=("python", "javascript"),
)
