"""Which statements of a program can matter: the walk is kept for those that can do something.

A statement that imports nothing but modules which touch nothing outside the program, that holds no word by which a
program reaches further (`open`, `eval`, `getattr`, `__class__`, ...), whose loops end and whose sizes are small, can
only compute. It yields no fact, unless what it computes is used by a statement that can do more. So the statements
that can do more are looked for first, then all that share a name of the module with them, again and again. What is
left over is not walked. Doubt counts as "can matter": this saves time, it never decides.
"""

from __future__ import annotations

import ast
import re
import unicodedata
from typing import TYPE_CHECKING, Any, NamedTuple

from mayfly.scan.facts import ImportUse
from mayfly.scan.python import loops

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from mayfly.scan.facts import Fact

__all__ = ["relevant"]

_PURE = frozenset({
    "__future__", "abc", "array", "bisect", "calendar", "cmath", "collections", "copy", "dataclasses", "datetime",
    "decimal", "enum", "fractions", "functools", "heapq", "itertools", "json", "math", "numbers", "random", "re",
    "statistics", "string", "textwrap", "time", "typing", "unicodedata",
})  # fmt: skip
_WORD = re.compile(r"[^\W\d]\w*")
_PLAIN_WORD = re.compile(r"[A-Za-z_]\w*", re.ASCII)  # the same in a text of plain letters, in two thirds of the time
# Words by which a program reaches what is outside it or reads itself, and methods that the walk knows.
_TELLING = frozenset({
    "ForwardRef", "_builtins", "_evaluate", "_os", "_sys", "ag_frame", "attrgetter", "breakpoint", "builtins",
    "bytearray", "co_code", "codecs", "cr_frame", "delattr", "environ", "eval", "exec", "exec_command", "execfile",
    "f_back", "f_builtins", "f_globals", "f_locals", "func_globals", "get_ipython", "get_type_hints", "getattr",
    "gi_frame", "globals", "importlib", "inspect", "linecache", "locals", "make_dataclass", "memoryview",
    "methodcaller", "open", "os", "recv", "recv_into", "recvfrom", "save", "savefig", "send_message", "sendall",
    "sendmail", "sendto", "setattr", "subprocess", "sys", "tb_frame", "to_csv", "to_excel", "to_json", "to_parquet",
    "to_pickle", "tofile", "vars", "write", "writelines",
})  # fmt: skip
_ENDLESS = frozenset({"count", "cycle", "repeat"})
_COMPILE = re.compile(r"(?<!\bre\.)\bcompile\b")
_USUAL_INSIDES = frozenset({
    "__init__", "__main__", "__name__", "__str__", "__repr__", "__eq__", "__lt__", "__le__", "__gt__", "__ge__",
    "__ne__", "__len__", "__iter__", "__next__", "__add__", "__sub__", "__mul__", "__hash__", "__contains__",
    "__getitem__", "__setitem__", "__future__", "__post_init__", "__bool__", "__call__", "__enter__", "__exit__",
})  # fmt: skip
# What large sizes are made of: long numbers, powers but squares and cubes, shifts, products of numbers.
_NUMBER = re.compile(r"[0-9][\w.]{2,}")
_POWER = re.compile(r"\*\*(?!\s*[23]\b)|\d\s*\*\*")
_PRODUCT = re.compile(r"\d\s*\*\s*\d")
_NAMED_LONG = re.compile(r"=\s*\d{4}")
_MANY = 5_000
_MANY_ON_A_LINE = 20
_WORTH_PICKING = 40
_FEW = 8


class _Part(NamedTuple):
    """A statement of the module: its words, the names of the module that it sets, and whether it can do something."""

    words: set[str]
    sets: set[str]
    matters: bool


def relevant(tree: ast.Module, text: str) -> tuple[list[ast.stmt], list[Fact]]:
    """The module's statements that the walk has to see, in order, and the imports that stand in the others."""
    body = tree.body
    if "\r" in text or "\f" in text or len(body) > _MANY or _crowded(body):
        return body, []  # lines are not what they seem, or looking costs more than it saves
    if any(map(_reaching_import, body)):
        return body, []  # in a program that reaches for something nearly everything is connected
    word = _PLAIN_WORD
    if not text.isascii():
        word = _WORD
        text = unicodedata.normalize("NFKC", text)
    short = len(body) < _WORTH_PICKING
    sources = [text] if short else _sources(body, text)
    words = [set(word.findall(source)) for source in sources]
    telling, sizes = _telling(set().union(*words), text), _Sizes(text)
    if short and (telling or sizes.large):
        return body, []  # where anything can do something, picking takes as long as walking
    found = [_Structure(statement, text) for statement in body]
    matters = any(one.matters for one in found)
    if any(one.takes_all for one in found) or (short and matters):
        return body, []
    live: set[int] = set()
    if telling or sizes.large or matters:
        looks = zip(found, sources, words, strict=True)
        live = _connected([_look(one, source, own, telling, sizes) for one, source, own in looks])
    kept: list[ast.stmt] = []
    imports: list[Fact] = []
    for number, one in enumerate(found):
        if number in live or isinstance(one.statement, (ast.Import, ast.ImportFrom)):
            kept.append(one.statement)
        else:
            imports += one.imports
    return kept, imports


def _crowded(body: list[ast.stmt]) -> bool:
    """True when many statements stand on one line: each would be judged by all of that line."""
    return any(later.lineno == earlier.lineno for earlier, later in zip(body, body[_MANY_ON_A_LINE:], strict=False))


def _reaching_import(statement: ast.stmt) -> bool:
    return any(module.partition(".")[0] not in _PURE for module, _ in _modules(statement))


class _Structure:
    """What the statements below one of the module's tell: what they import, and whether a loop may not end."""

    __slots__ = ("imports", "matters", "statement", "takes_all")

    def __init__(self, statement: ast.stmt, text: str) -> None:
        self.statement = statement
        self.matters = False
        self.takes_all = False
        self.imports: list[Fact] = []
        if statement.__class__ in _PLAIN:
            return
        stack: list[tuple[list[ast.stmt], bool]] = [([statement], False)]
        while stack:
            body, guarded = stack.pop()
            for below in body:
                kind = below.__class__
                if kind not in _SIMPLE:
                    if not self.matters and (doubt := _DOUBTS.get(kind)) is not None:
                        self.matters = doubt(below, text)
                    stack += _bodies(below, guarded=guarded)
                elif kind is ast.Import or kind is ast.ImportFrom:
                    self._import(below, guarded=guarded)

    def _import(self, statement: ast.stmt, *, guarded: bool) -> None:
        for module, place in _modules(statement):
            if module.partition(".")[0] not in _PURE:
                self.matters = True
                self.takes_all |= "*" in [alias.name for alias in statement.names]  # type: ignore[attr-defined]
            self.imports.append(
                ImportUse(module=module, guarded=guarded, line=place.lineno, column=place.col_offset + 1)
            )


def _bodies(statement: Any, *, guarded: bool) -> list[tuple[list[ast.stmt], bool]]:
    """The lists of statements below a statement; `guarded` where errors are handled."""
    kind = statement.__class__
    if kind is ast.FunctionDef or kind is ast.With or kind is ast.ClassDef:
        return [(statement.body, guarded)]
    if kind is ast.Try or kind is ast.TryStar:
        return [
            (statement.body, guarded or bool(statement.handlers)),
            *((handler.body, guarded) for handler in statement.handlers),
            (statement.orelse, guarded),
            (statement.finalbody, guarded),
        ]
    if kind is ast.Match:
        return [(case.body, guarded) for case in statement.cases]
    return [(statement.body, guarded), (getattr(statement, "orelse", []), guarded)]


def _sources(body: list[ast.stmt], text: str) -> list[str]:
    """The lines on which each statement stands, its decorators too."""
    lines = text.split("\n")
    found: list[str] = []
    for statement in body:
        decorators = getattr(statement, "decorator_list", None)
        first = min([statement.lineno, *(d.lineno for d in decorators)]) if decorators else statement.lineno
        last = statement.end_lineno
        found.append(lines[first - 1] if first == last else "\n".join(lines[first - 1 : last]))
    return found


def _look(one: _Structure, source: str, words: set[str], telling: set[str], sizes: _Sizes) -> _Part:
    """One statement on its own, by what is `telling` in the whole program and by the `sizes` that it may make."""
    matters = one.matters or not words.isdisjoint(telling) or (sizes.large and sizes.large_in(source))
    return _Part(words, _sets(one.statement, words, source), matters)


def _telling(words: set[str], text: str) -> set[str]:
    """The words of the program that tell of more than computing."""
    found = words & _TELLING
    if "itertools" in words:
        found |= words & _ENDLESS
    if "compile" in words and _COMPILE.search(text):
        found.add("compile")
    if "__" in text:
        found.update([word for word in words if "__" in word and word not in _USUAL_INSIDES])
    return found


class _Sizes:
    """Whether a size of a gibibyte might be made in a program, and in which statements: a product of what is long."""

    __slots__ = ("_huge", "_named", "large")

    def __init__(self, text: str) -> None:
        numbers = set(_NUMBER.findall(text))
        self._huge = [number for number in numbers if _huge(number)]
        self._named = _NAMED_LONG.search(text) is not None
        self.large = bool(self._huge) or _makes_large(text, numbers)

    def large_in(self, source: str) -> bool:
        """True when the statement might make a large size, or a name for a number that is multiplied elsewhere."""
        if len(self._huge) > _FEW:
            if any(map(_huge, _NUMBER.findall(source))):
                return True
        else:
            for number in self._huge:
                if number in source:
                    return True
        if ("*" in source or "<<" in source) and _makes_large(source, _NUMBER.findall(source)):
            return True
        return self._named and _NAMED_LONG.search(source) is not None


def _huge(number: str) -> bool:
    return len(number.partition(".")[0]) >= 7 or not number.replace(".", "", 1).isdecimal()


def _makes_large(source: str, numbers: Iterable[str]) -> bool:
    """True for a shift, for a power, and for a product with a long number; `numbers` stand in the source."""
    if "<<" in source or ("**" in source and _POWER.search(source)):
        return True
    if "*" not in source:
        return False
    return _PRODUCT.search(source) is not None or any(len(number.partition(".")[0]) >= 4 for number in numbers)


def _sets(statement: ast.stmt, words: set[str], source: str) -> set[str]:
    """The names of the module that the statement may set; every word of it where that is not plain to see."""
    kind = statement.__class__
    if kind is ast.FunctionDef or kind is ast.ClassDef or kind is ast.AsyncFunctionDef:
        return words if "global" in words else {statement.name}  # type: ignore[attr-defined]
    if ":=" not in source:
        if kind is ast.Expr or kind is ast.Assert:
            return set()
        if isinstance(statement, ast.Assign) and all(isinstance(t, ast.Name) for t in statement.targets):
            return {t.id for t in statement.targets if isinstance(t, ast.Name)}
        if isinstance(statement, (ast.Import, ast.ImportFrom)):
            if all(module.partition(".")[0] in _PURE for module, _ in _modules(statement)):
                return set()  # a module that only computes connects nobody
            return {(alias.asname or alias.name).partition(".")[0] for alias in statement.names}
    return words


def _connected(parts: list[_Part]) -> set[int]:
    """The numbers of the statements that matter: those that can do something, and all that share names with them."""
    setting: set[str] = set().union(*(part.sets for part in parts)) if parts else set()
    holders: dict[str, list[int]] = {}
    for number, part in enumerate(parts):
        for word in part.words & setting:
            holders.setdefault(word, []).append(number)
    open_ones = [number for number, part in enumerate(parts) if part.matters]
    live = set(open_ones)
    while open_ones:
        for word in parts[open_ones.pop()].words & setting:
            for number in holders.pop(word, ()):
                if number not in live:
                    live.add(number)
                    open_ones.append(number)
    return live


_SIMPLE = frozenset({
    ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Expr, ast.Return, ast.Assert, ast.Raise, ast.Import, ast.ImportFrom,
    ast.Pass, ast.Break, ast.Continue, ast.Global, ast.Nonlocal, ast.Delete,
})  # fmt: skip
_PLAIN = _SIMPLE - {ast.Import, ast.ImportFrom}


def _modules(statement: ast.stmt) -> Iterator[tuple[str, ast.stmt | ast.alias]]:
    """The modules that an import names, each with what says where it stands."""
    if isinstance(statement, ast.Import):
        for alias in statement.names:
            yield alias.name, alias
    elif isinstance(statement, ast.ImportFrom):
        yield "." * statement.level + (statement.module or ""), statement


_DOUBTS: dict[type, Callable[[Any, str], bool]] = {
    ast.While: lambda node, _text: loops.may_be_endless(node),
    ast.For: lambda node, _text: loops.may_grow(node),
    ast.FunctionDef: lambda node, text: loops.recursion_place(node, text) is not None,
    **dict.fromkeys((ast.AsyncFunctionDef, ast.AsyncFor, ast.AsyncWith), lambda _node, _text: True),
}
