"""GuardDog's YARA rules (Apache-2.0), read from its installed package and matched with yara-python.

GuardDog itself is not imported: it analyses whole packages from registries and brings much along for that.
"""

from __future__ import annotations

import fnmatch
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mayfly.scan.layers.layer import LayerError, make_finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mayfly.model import Finding, Severity
    from mayfly.scan.source import Program

__all__ = ["GuardDogLayer", "guarddog_folder"]

_INSTALL = "it is not installed: pip install 'mayfly[guarddog]'"
_TIMEOUT_S = 5
_MAX_RULE_BYTES = 256 * 1024
_ENDINGS = {"python": ".py", "bash": ".sh", "javascript": ".js", "typescript": ".ts"}
# By its severity and by how specific it calls the rule. What it calls a capability is what many good programs do.
_SEVERITY: dict[tuple[str, str], Severity] = {
    ("high", "high"): "high",
    ("high", "medium"): "medium",
    ("medium", "high"): "medium",
    ("medium", "medium"): "medium",
}


def guarddog_folder() -> Path:
    """Where GuardDog is installed. LayerError when it is not."""
    spec = find_spec("guarddog")
    if spec is None or not spec.submodule_search_locations:
        raise LayerError(_INSTALL)
    return Path(next(iter(spec.submodule_search_locations)))


class GuardDogLayer:
    """GuardDog's source rules, each only for the files that its `path_include` names."""

    name = "guarddog"

    def __init__(self, folder: Path | None = None) -> None:
        try:
            yara = import_module("yara")
        except ImportError as error:
            raise LayerError(_INSTALL) from error
        if folder is None:
            folder = guarddog_folder() / "analyzer" / "sourcecode"
            self.version: str = metadata.version("guarddog")
        else:
            self.version = "folder"
        sources = {}
        for file in sorted(folder.glob("*.yar")):
            with file.open("r", encoding="utf-8", errors="replace") as stream:
                sources[file.stem] = stream.read(_MAX_RULE_BYTES)
        if not sources:
            raise LayerError(f"no rules (*.yar) in {folder}")
        self._rules = self._compile(yara, sources)

    @staticmethod
    def _compile(yara: Any, sources: dict[str, str]) -> Any:
        """All the rules in one; a rule that does not compile is left out, as GuardDog does."""
        try:
            return yara.compile(sources=sources)
        except yara.SyntaxError:
            usable = {}
            for name, source in sources.items():
                try:
                    yara.compile(source=source)
                except yara.SyntaxError:
                    continue
                usable[name] = source
            if not usable:
                raise LayerError("none of its rules can be compiled") from None
            return yara.compile(sources=usable)

    def findings(self, program: Program, file_name: str) -> Iterator[Finding]:
        """One finding for each rule that matches, where it first does."""
        name = file_name or f"program{_ENDINGS[program.lang]}"
        for match in self._rules.match(data=program.data, timeout=_TIMEOUT_S):
            meta = match.meta
            if not _meant_for(name, str(meta.get("path_include", ""))):
                continue
            offsets = [instance.offset for string in match.strings for instance in string.instances]
            grade = (str(meta.get("severity")), str(meta.get("specificity")))
            threat = not match.rule.startswith("capability")
            yield make_finding(
                "GUARDDOG-" + match.rule.upper().replace("_", "-"),
                _SEVERITY.get(grade, "low") if threat else "low",
                str(meta.get("description") or match.rule),
                data=program.data,
                offset=min(offsets, default=0),
                confidence=grade[1] if grade[1] in ("low", "medium", "high") else "low",
            )


def _meant_for(name: str, path_include: str) -> bool:
    """True when the rule names no files, or this one; by the whole path or its last part."""
    patterns = [pattern.strip() for pattern in path_include.split(",") if pattern.strip()]
    last = name.rpartition("/")[2]
    return not patterns or any(fnmatch.fnmatch(name, p) or fnmatch.fnmatch(last, p) for p in patterns)
