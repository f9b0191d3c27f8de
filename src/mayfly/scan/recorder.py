"""Where front ends put their facts: knows the place, the loop and how deep in encodings it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mayfly.scan.facts import (
    UNKNOWN,
    AllocUse,
    CallUse,
    CodeRun,
    CommandUse,
    EnvUse,
    Fact,
    FileUse,
    Introspection,
    KillUse,
    LoadUse,
    LoopUse,
    NetUse,
    Oddity,
    ProcUse,
    Value,
)

if TYPE_CHECKING:
    from mayfly.scan.facts import FileOp, NetOp, ScanLanguage

__all__ = ["MAX_DEPTH", "Recorder"]

MAX_DEPTH = 3
_MAX_FACTS = 20_000
_MAX_NESTED = 512
_MAX_FILES = 64
_MAX_WRITTEN = 64 * 1024
_PLAIN_COMMANDS = frozenset({"echo", "printf", "true", "false", "set", "shift", "test", "[", ":", "export", "local"})


class Recorder:
    """Collects facts at the current place. Bounded: what comes after 20,000 facts is dropped, and that is a fact."""

    def __init__(self) -> None:
        self.facts: list[Fact] = []
        self.line = 0
        self.column = 0
        self.depth = 0
        self.loops = 0
        self.cwd = ""
        self._nested = 0
        self._overran = False
        self._written: dict[str, str] = {}
        self._seen: set[tuple[str, str]] = set()

    def _add(self, fact: Fact) -> None:
        if len(self.facts) < _MAX_FACTS:
            self.facts.append(fact)
        else:
            self.overrun()

    def overrun(self) -> None:
        """There is more than is looked at: from here on the program is not judged."""
        if not self._overran:
            self._overran = True
            self.facts.append(Oddity(kind="unwalked", text="", **self._at))

    @property
    def _at(self) -> dict[str, Any]:
        return {"line": self.line, "column": self.column, "depth": self.depth}

    def enter(self, directory: Value) -> None:
        """The working directory changes; relative paths that follow are below it where it is known."""
        text = directory.consts[0] if len(directory.consts) == 1 else ""
        self.cwd = text.rstrip("/") + "/" if isinstance(text, str) and text.startswith(("/", "~")) else ""

    def _below(self, path: Value) -> Value:
        relative = [c for c in path.consts if isinstance(c, str) and not c.startswith(("/", "~", "$"))]
        if not self.cwd or not relative:
            return path
        consts = tuple(self.cwd + c if c in relative else c for c in path.consts)
        return Value(consts=consts, prefix=path.prefix, taints=path.taints, origin=path.origin)

    def file(self, op: FileOp, path: Value, content: Value = UNKNOWN, mode: int | None = None) -> None:
        """A file is used."""
        path = self._below(path)
        if op == "write" and path.consts and content.consts and len(self._written) < _MAX_FILES:
            name = str(path.consts[0]).rpartition("/")[2]
            self._written[name] = self._written.get(name, "") + "".join(content.texts[:1])[:_MAX_WRITTEN]
        self._add(FileUse(op=op, path=path, content=content, mode=mode, in_loop=self.loops > 0, **self._at))

    def net(self, op: NetOp, target: Value = UNKNOWN, port: Value = UNKNOWN, data: Value = UNKNOWN) -> None:
        """The network is used; a `file:` URL is a file."""
        for text in target.texts:
            if text[:7].lower() == "file://":
                self.file("read", Value(consts=(text[7:],), taints=target.taints))
        self._add(NetUse(op=op, target=target, port=port, data=data, in_loop=self.loops > 0, **self._at))

    def shell(self, text: Value, stdin: Value = UNKNOWN) -> Value:
        """A shell runs `text`; what is known of the text is read as bash. The value is its output."""
        self._add(ProcUse(text=text, shell=True, stdin=stdin, in_loop=self.loops > 0, **self._at))  # noqa: S604 - a fact
        for known in text.texts:
            self.nested(known, "bash", deeper="decoded" in text.taints)
        return Value(taints=text.taints | {"output"})

    def start(self, argv: list[Value], stdin: Value = UNKNOWN) -> Value:
        """A process is started from an argument list. The value is its output."""
        from mayfly.scan.commands import run_command

        self._add(ProcUse(argv=tuple(argv), stdin=stdin, in_loop=self.loops > 0, **self._at))
        return run_command(self, argv, stdin)

    def command(self, name: str, values: list[Value], before: tuple[str, ...] = ()) -> None:
        """A command line is known."""
        args = tuple((value.texts or ("",))[0] for value in values)
        if name == "run-file" and args and (text := self._written.get(args[0].rpartition("/")[2])):
            self.nested(text, "python" if args[0].endswith(".py") else "bash", deeper=False)
        self._add(
            CommandUse(name=name, args=args, values=tuple(values), before=before, in_loop=self.loops > 0, **self._at)
        )

    def kill(self, by: str, target: Value = UNKNOWN, names: tuple[str, ...] = ()) -> None:
        """A process is signalled."""
        self._add(KillUse(by=by, target=target, names=names, **self._at))  # type: ignore[arg-type]

    def code(self, how: str, value: Value, *, harmless: bool = False) -> None:
        """Text becomes code."""
        self._add(CodeRun(how=how, value=value, harmless=harmless, **self._at))

    def inside(self, name: str) -> None:
        """The interpreter's insides are reached."""
        self._add(Introspection(name=name, **self._at))

    def load(self, form: str, value: Value) -> None:
        """Bytes become objects."""
        self._add(LoadUse(format=form, value=value, **self._at))

    def env(self, name: str = "", how: str = "") -> None:
        """The environment is read."""
        self._add(EnvUse(name=name, how=how, **self._at))

    def loop(self, does: set[str], kind: str = "loop") -> None:
        """A loop without an exit."""
        self._add(LoopUse(does=frozenset(does), kind=kind, **self._at))

    def alloc(self, size_bytes: int, what: str) -> None:
        """Much memory is asked for."""
        self._add(AllocUse(size_bytes=size_bytes, what=what, **self._at))

    def call(self, name: str, args: list[Value], kwargs: dict[str, Value] | None = None) -> None:
        """A call with a resolved name."""
        self._add(
            CallUse(
                name=name,
                args=tuple(args),
                kwargs=kwargs or {},
                in_loop=self.loops > 0,
                line=self.line,
                column=self.column,
                depth=self.depth,
            )
        )

    def reaches(self, since: int) -> bool:
        """True when the facts since then use files, processes, the network or more dynamic code."""
        telling = (FileUse, NetUse, ProcUse, CommandUse, KillUse, CodeRun, Introspection)
        return any(
            isinstance(fact, telling) and not (isinstance(fact, CommandUse) and fact.name in _PLAIN_COMMANDS)
            for fact in self.facts[since:]
        )

    def nested(self, text: str, lang: ScanLanguage, *, deeper: bool) -> bool:
        """Read a program inside the program; its facts get this place. False when it is none, or too deep."""
        if self.depth + deeper > MAX_DEPTH or (text, lang) in self._seen:
            return (text, lang) in self._seen
        if self._nested >= _MAX_NESTED:
            self.overrun()
            return False
        self._seen.add((text, lang))
        self._nested += 1
        from mayfly.scan.nested import read_nested

        facts = read_nested(text, lang)
        if facts is None:
            return False
        if len(facts) > _MAX_FACTS // 10:
            self.overrun()
        for fact in facts[: _MAX_FACTS // 10]:
            depth = fact.depth + self.depth + deeper
            if depth <= MAX_DEPTH:
                self._add(type(fact)(**{**_fields(fact), "line": self.line, "column": self.column, "depth": depth}))
        return True


def _fields(fact: Fact) -> dict[str, Any]:
    return {name: getattr(fact, name) for name in fact.__struct_fields__}
