"""What the front ends tell the rules: one vocabulary for every language.

A front end (Python, bash, JavaScript) walks its tree once and yields facts; a rule sees only facts, so that one rule
about deleting a system file covers `os.remove`, `rm` and `fs.unlinkSync`. Every fact says where it was seen.
Lines and columns count from 1; 0 is "nowhere in particular".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "UNKNOWN",
    "AllocUse",
    "CallUse",
    "CodeRun",
    "CommandUse",
    "EnvUse",
    "Fact",
    "FileUse",
    "ImportUse",
    "Introspection",
    "KillUse",
    "LayerGap",
    "LoadUse",
    "LoopUse",
    "NetUse",
    "Oddity",
    "ProcUse",
    "ProgramEnd",
    "ScanLanguage",
    "TextSeen",
    "Value",
    "program_end",
]

ScanLanguage = Literal["python", "bash", "javascript", "typescript"]
"""The languages the scan reads; more than those a node runs."""

FileOp = Literal["read", "write", "delete", "delete-tree", "list", "chmod", "chown", "link", "rename", "encrypt"]
NetOp = Literal["fetch", "send", "connect", "listen", "raw"]


class Value(msgspec.Struct, frozen=True):
    """What is known of a value without running the program.

    `consts` are the constants it may be (several after a branch; none when unknown), `prefix` is the known start of a
    text whose end is not known, `taints` say where it came from (`net`, `input`, `env`, `secret`, `param`,
    `decoded`, ...), `origin` is the resolved name of what made it, `elements` are the members of a list, tuple or
    dictionary, `keys` the dictionary's known keys, and `ref` a function or class of the program itself.
    """

    consts: tuple[Any, ...] = ()
    prefix: str = ""
    taints: frozenset[str] = frozenset()
    origin: str = ""
    elements: tuple[Value, ...] | None = None
    keys: tuple[str, ...] = ()
    ref: Any = None

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts it may be; bytes count as Latin-1 text. A text with an unknown end counts by its start."""
        if not self.consts:
            return (self.prefix,) if self.prefix else ()
        found = [c if isinstance(c, str) else c.decode("latin-1") for c in self.consts if isinstance(c, (str, bytes))]
        if self.prefix:
            found.append(self.prefix)
        return tuple(found)

    @property
    def numbers(self) -> tuple[int | float, ...]:
        """The numbers it may be."""
        if not self.consts:
            return ()
        return tuple([c for c in self.consts if isinstance(c, (int, float)) and not isinstance(c, bool)])


UNKNOWN = Value()


_F = TypeVar("_F", bound="Fact")


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """Something seen at a place. `depth` counts the encodings (or nested programs) it was unpacked from."""

    line: int = 0
    column: int = 0
    depth: int = 0


class Oddity(Fact, frozen=True, kw_only=True):
    """Something about the bytes themselves: `kind` is `bidi`, `bare-cr`, `invisible`, `compat-letters`, ...

    `unparsed`: a part that the grammar does not take; `unwalked`: from here on nothing was looked at.
    """

    kind: str
    text: str


class ImportUse(Fact, frozen=True, kw_only=True):
    """A module is imported: `module` is its dotted name. `guarded`: the program survives its absence."""

    module: str
    guarded: bool = False

    @property
    def top(self) -> str:
        """The first part of the dotted name."""
        return self.module.partition(".")[0]


class FileUse(Fact, frozen=True, kw_only=True):
    """A file or directory is used. `mode` is the permission bits of a chmod; `content` what is written."""

    op: FileOp
    path: Value
    content: Value = UNKNOWN
    mode: int | None = None
    in_loop: bool = False


class NetUse(Fact, frozen=True, kw_only=True):
    """The network is used. `target` is a URL or host name; `data` is what is sent. `raw`: packets, not connections."""

    op: NetOp
    target: Value = UNKNOWN
    port: Value = UNKNOWN
    data: Value = UNKNOWN
    in_loop: bool = False


class ProcUse(Fact, frozen=True, kw_only=True):
    """A process is started, from a shell's `text` or from an argument list. `stdin`: what feeds it."""

    text: Value = UNKNOWN
    argv: tuple[Value, ...] = ()
    shell: bool = False
    stdin: Value = UNKNOWN
    in_loop: bool = False


class CommandUse(Fact, frozen=True, kw_only=True):
    """A command line is known: `name` without its directory, `args` with "" for what is not known.

    `before` names the commands whose output is piped into it; `known` is false when an argument is not known.
    """

    name: str
    args: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    values: tuple[Value, ...] = ()
    in_loop: bool = False


class KillUse(Fact, frozen=True, kw_only=True):
    """A process is signalled. `by`: `pid`, `name` (pkill), `list` (from a list of all processes), `own` (a child)."""

    by: Literal["pid", "name", "list"]
    target: Value = UNKNOWN
    names: tuple[str, ...] = ()


class CodeRun(Fact, frozen=True, kw_only=True):
    """Text becomes code. `how` is `eval`, `exec`, `compile`, `import`, `attribute` or `function`."""

    how: str
    value: Value
    harmless: bool = False
    """The text is known, and was judged as a part of the program."""


class Introspection(Fact, frozen=True, kw_only=True):
    """The interpreter's insides are reached: `name` is the attribute."""

    name: str


class LoadUse(Fact, frozen=True, kw_only=True):
    """Bytes become objects: `format` is `pickle`, `marshal`, `yaml`, `jsonpickle`, ..."""

    format: str
    value: Value


class EnvUse(Fact, frozen=True, kw_only=True):
    """The environment is read: one `name`, or all of it when empty."""

    name: str = ""
    how: str = ""


class LoopUse(Fact, frozen=True, kw_only=True):
    """A loop without an exit. `does` tells what it holds: `grow`, `spawn`, `write`, `wait`, `call`, `input`, `net`."""

    does: frozenset[str]
    kind: str = "loop"


class AllocUse(Fact, frozen=True, kw_only=True):
    """Memory of a known, large size is asked for, in bytes."""

    size_bytes: int
    what: str


class TextSeen(Fact, frozen=True, kw_only=True):
    """A text constant of the program."""

    text: str
    name: str = ""
    """The variable, parameter or key it is given to."""


class CallUse(Fact, frozen=True, kw_only=True):
    """A call whose name was resolved (`os.setuid`): the long tail that has no fact of its own."""

    name: str
    args: tuple[Value, ...] = ()
    kwargs: dict[str, Value] = {}
    in_loop: bool = False


class LayerGap(Fact, frozen=True, kw_only=True):
    """A signal layer that the policy names could not be asked."""

    layer: str
    reason: str


class ProgramEnd(Fact, frozen=True, kw_only=True):
    """Comes last: every fact that was seen, by its type and in order, for rules that judge the sum."""

    by_type: dict[type[Fact], list[Any]] = {}

    def of(self, kind: type[_F]) -> list[_F]:
        """The facts of one type."""
        return self.by_type.get(kind, [])


def program_end(facts: Iterable[Fact]) -> ProgramEnd:
    """The fact that comes last."""
    by_type: dict[type[Fact], list[Any]] = {}
    for fact in facts:
        by_type.setdefault(fact.__class__, []).append(fact)
    return ProgramEnd(by_type=by_type)
