"""What a layer is, and how one is opened and asked."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

from mayfly.model import Finding
from mayfly.scan.facts import LayerGap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mayfly.model import Severity
    from mayfly.scan.source import Program

__all__ = ["Layer", "LayerError", "findings_of", "make_finding", "open_layer"]

_MAX_FINDINGS = 50
_MAX_MESSAGE = 300


class LayerError(Exception):
    """A layer is not installed, or could not be used. Its message says what would help."""


class Layer(Protocol):
    """One other scanner. `name` and `version` go into the verdict's `versions`."""

    name: str
    version: str

    def findings(self, program: Program, file_name: str) -> Iterable[Finding]:
        """What it finds; `file_name` is the program's name as the user knows it, for rules about certain files."""


@lru_cache(maxsize=8)
def open_layer(name: str) -> Layer | str:
    """The layer, made once; or why there is none."""
    opener = _OPENERS.get(name)
    if opener is None:
        return f"there is no signal layer {name}"
    try:
        return opener()
    except LayerError as error:
        return str(error)


def findings_of(
    names: Iterable[str], program: Program, file_name: str
) -> tuple[list[Finding], list[LayerGap], dict[str, str]]:
    """What the named layers find, which of them could not be asked, and the versions of the others."""
    found: list[Finding] = []
    gaps: list[LayerGap] = []
    versions: dict[str, str] = {}
    for name in names:
        layer = open_layer(name)
        if isinstance(layer, str):
            gaps.append(LayerGap(layer=name, reason=layer))
            continue
        versions[layer.name] = layer.version
        try:
            own = [
                finding for finding, _ in zip(layer.findings(program, file_name), range(_MAX_FINDINGS), strict=False)
            ]
        except (KeyboardInterrupt, SystemExit, MemoryError):
            raise
        except LayerError as error:
            gaps.append(LayerGap(layer=name, reason=str(error)))
            continue
        except BaseException as error:  # noqa: BLE001 - a panic of compiled code is no Exception
            gaps.append(LayerGap(layer=name, reason=f"it failed at this program ({type(error).__name__})"))
            continue
        found += own
    return found, gaps, versions


def make_finding(
    rule: str, severity: Severity, message: str, *, data: bytes, offset: int, confidence: str = "medium"
) -> Finding:
    """A layer's finding at an offset of the program's bytes."""
    rest = data[max(offset, 0) :]
    offset = max(offset, 0) + len(rest) - len(rest.lstrip())  # a pattern may begin with the line's end before
    before = data[:offset]
    line, column = before.count(b"\n") + 1, len(before) - before.rfind(b"\n")
    return Finding(
        rule=rule,
        severity=severity,
        message=" ".join(message.split())[:_MAX_MESSAGE],
        confidence=confidence,  # type: ignore[arg-type]
        line=line,
        column=column,
    )


def _hexora() -> Layer:
    from mayfly.scan.layers.hexora import HexoraLayer

    return HexoraLayer()


def _guarddog() -> Layer:
    from mayfly.scan.layers.guarddog import GuardDogLayer

    return GuardDogLayer()


_OPENERS: dict[str, Callable[[], Layer]] = {"guarddog": _guarddog, "hexora": _hexora}
