"""Preloading: what programs import most is imported while the runner waits, and put aside until it is asked for.

`fill` imports a list of modules and then takes everything that came with them out of `sys.modules` again, into a
stash. So a program starts as under plain Python, pays at its end for nothing that it never used, and an `import` of
one of them finds it here: the module comes back with everything that its import would have brought, in no time.

What imports left behind elsewhere is taken back too: warning filters and functions to call at exit come back with
the module that made them. A file of the program's own that a plain `import` would find first is found first here.

Loaded by `sitecustomize` and by nothing else; on its own it imports only what is compiled into the interpreter.
"""

import atexit
import builtins
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

    _warnings: Any
else:
    import _signal
    import _warnings

__all__ = ["PreloadError", "Stash", "fill"]

_bootstrap: "Any" = sys.modules["_frozen_importlib"]
_external: "Any" = sys.modules["_frozen_importlib_external"]
_IMPORTERS = ("_frozen_importlib", "importlib._bootstrap")
"""Names that the import system itself imports by, for others."""
_SIGNALS = range(1, 65)
_HOOKS = ("displayhook", "excepthook", "unraisablehook", "breakpointhook", "path", "path_hooks", "meta_path")


class PreloadError(Exception):
    """The interpreter is no longer one that a program could be given."""


class Stash:
    """Modules put aside, and the finder that gives them back. First on `sys.meta_path` while it holds any."""

    def __init__(self) -> None:
        self.modules: dict[str, ModuleType] = {}
        self.needs: dict[str, set[str]] = {}
        """Modules that the import of one has asked for."""
        self.exits: dict[str, list[tuple[Any, ...]]] = {}
        self.filters: dict[str, list[Any]] = {}
        self.attributes: dict[str, tuple[dict[str, Any], str]] = {}
        """Of submodules that their package's own import does not bring: where they are an attribute."""
        self.placed: dict[str, ModuleType] = {}
        self.path: list[str] = []
        self.this = self  # with `gc.freeze`: what nobody asked for is never torn down

    # -- finder and loader ---------------------------------------------------------------------------------

    def find_spec(self, name: str, path: "Sequence[str] | None" = None, target: object = None) -> "ModuleSpec | None":
        """A specification that loads the module from here; None when it is not here, or another one comes first."""
        module = self.modules.get(name)
        original = None if module is None else vars(module).get("__spec__")
        if original is None or target is not None:
            return None
        if original.has_location:
            found = _external.PathFinder.find_spec(name, path)
            if found is None or found.origin != original.origin:
                return None
        spec: ModuleSpec = _bootstrap.ModuleSpec(name, self, origin=original.origin)
        spec.loader_state = original
        return spec

    def create_module(self, spec: "ModuleSpec") -> "ModuleType | None":
        """The module that is here; a new one when another thread took it in the meantime."""
        return self.modules.get(spec.name) or self.placed.get(spec.name)

    def exec_module(self, module: "ModuleType") -> None:
        """Gives it its own specification again, and puts back what belongs to it."""
        spec: Any = module.__spec__
        vars(module)["__spec__"] = spec.loader_state
        self.put_back(spec.name)

    # -- putting back --------------------------------------------------------------------------------------

    def reach(self, name: str) -> dict[str, "ModuleType"]:
        """The module and everything here that its import brings."""
        found: dict[str, ModuleType] = {}
        waiting = [name]
        while waiting:
            name = waiting.pop()
            module = self.modules.get(name)
            if module is not None and name not in found:
                found[name] = module
                waiting += self.needs.get(name, ())
        return found

    def put_back(self, name: str) -> None:
        """Makes the module, and what its import brings, importable as if that import had happened now."""
        shadows = self._shadows()
        for each, module in self.reach(name).items():
            if each != name and each.partition(".")[0] in shadows:
                continue
            if self.modules.pop(each, None) is None:
                continue  # another thread was faster
            sys.modules.setdefault(each, module)
            self.placed[each] = module
            if each in self.attributes:
                names, child = self.attributes[each]
                names.setdefault(child, module)
            for function, args, kwargs in self.exits.pop(each, ()):
                atexit.register(function, *args, **kwargs)
            if each in self.filters:
                _warnings.filters[:0] = self.filters.pop(each)
                _filters_changed()
            if each in _RENEW:
                _RENEW[each](module)

    def _shadows(self) -> set[str]:
        """Top-level names for which the program's own directories have something, found before what is here."""
        names: set[str] = set()
        for entry in sys.path:
            if entry in self.path:
                break
            try:
                names.update(found.partition(".")[0] for found in os.listdir(entry or "."))
            except OSError:
                continue
        return names

    def leave(self) -> None:
        """At the end of the program: spares the interpreter to tear down module after module of what came from here.

        What belongs to the standard library stays: some of it has work to do at the end.
        """
        for name, module in self.placed.items():
            if name.partition(".")[0] not in sys.stdlib_module_names and sys.modules.get(name) is module:
                del sys.modules[name]


def fill(names: "Sequence[str]") -> tuple[Stash, list[str]]:
    """Imports the modules and puts them aside. Returns the stash and, in words, what could not be imported.

    Nothing is printed by them. PreloadError when something stays behind that a program would meet.
    """
    stash, failures = Stash(), []
    before = dict(sys.modules)
    del before["atexit"]  # the one that is watched goes with the others
    kept = {name: getattr(sys, name) for name in _HOOKS}
    lists = {name: list(value) for name, value in kept.items() if isinstance(value, list)}
    filters = list(_warnings.filters)
    handlers = [_signal.getsignal(number) for number in _SIGNALS]
    names_of_builtins = dict(vars(builtins))
    atexit.register(stash.leave)  # first in, last called
    recorder = _Recorder(stash)
    with recorder, _Silence():
        for name in names:
            try:
                __import__(name)
            except Exception as error:  # noqa: BLE001  of whatever kind: the others may work
                failures.append(f"{name}: {type(error).__name__}: {error}"[:200])
    stash.path = lists["path"]
    _put_aside(stash, before)
    for name, value in kept.items():
        setattr(sys, name, value)
        if name in lists:
            value[:] = lists[name]
    _warnings.filters[:] = filters
    _filters_changed()
    for name in vars(builtins).keys() - names_of_builtins.keys():
        delattr(builtins, name)
    for number, handler in zip(_SIGNALS, handlers, strict=True):
        if handler is not None and _signal.getsignal(number) is not handler:
            _signal.signal(number, handler)
    if len(os.listdir("/proc/self/task")) > 1:
        raise PreloadError("threads are running after the imports")
    sys.meta_path.insert(0, stash)
    return stash, failures


def _put_aside(stash: Stash, before: dict[str, "ModuleType"]) -> None:
    """Everything that is in `sys.modules` and was not before; and the attributes by which it could be seen."""
    for name in list(sys.modules):
        if name not in before:
            stash.modules[name] = sys.modules.pop(name)
    sys.modules.update(before)
    for name, module in stash.modules.items():
        package, _, child = name.rpartition(".")
        stash.needs.setdefault(name, set()).add(package)
        parent = stash.modules.get(package) or before.get(package)
        names = getattr(parent, "__dict__", {})
        if names.get(child) is module and name not in stash.reach(package):
            stash.attributes[name] = (names, child)
    for names, child in stash.attributes.values():
        del names[child]


class _Recorder:
    """Writes down, while modules are imported, who imports whom, and who left what behind."""

    def __init__(self, stash: Stash) -> None:
        self._stash = stash
        self._import = builtins.__import__
        self._load = _bootstrap._find_and_load  # noqa: SLF001  where every way to import something new ends
        self._register = atexit.register
        self._loading: list[str] = []
        self._filters: list[Any] = []
        self._seen: set[str] = set()
        self._on = False

    def __enter__(self) -> None:
        self._on = True
        self._seen = set(sys.modules)
        self._filters = list(_warnings.filters)
        builtins.__import__ = self._on_import
        _bootstrap._find_and_load = self._on_load  # noqa: SLF001
        atexit.register = self._on_register

    def __exit__(self, *_: object) -> None:
        self._on = False
        builtins.__import__ = self._import
        _bootstrap._find_and_load = self._load  # noqa: SLF001
        atexit.register = self._register

    def _needs(self, who: str, name: str) -> None:
        self._stash.needs.setdefault(who, set()).add(name)

    def _on_import(
        self,
        name: str,
        globals: "Any" = None,  # noqa: A002  as `__import__` calls them
        locals: "Any" = None,  # noqa: A002
        fromlist: "Any" = (),
        level: int = 0,
    ) -> "Any":
        module = self._import(name, globals, locals, fromlist, level)
        who = globals.get("__name__") if isinstance(globals, dict) else None
        if isinstance(who, str) and who not in _IMPORTERS:
            if level:
                package = globals.get("__package__") or who.rpartition(".")[0]
                base = ".".join(package.split(".")[: package.count(".") + 2 - level])
                name = f"{base}.{name}" if name else base
            self._needs(who, name)
            for each in fromlist or ():
                if f"{name}.{each}" in sys.modules:
                    self._needs(who, f"{name}.{each}")
        return module

    def _on_load(self, name: str, import_: "Any") -> "Any":
        if self._loading:
            self._needs(self._loading[-1], name)
        self._loading.append(name)
        self._seen.add(name)
        try:
            return self._load(name, import_)
        finally:
            self._loading.pop()
            self._assign(name)

    def _assign(self, name: str) -> None:
        """What is new after a module was loaded, and came with none that was loaded for it, is its doing."""
        others = sys.modules.keys() - self._seen
        for each in others:
            self._needs(name, each)
        self._seen |= others
        new = [each for each in _warnings.filters if each not in self._filters]
        if new:
            self._stash.filters.setdefault(name, []).extend(new)
            self._filters += new

    def _on_register(self, function: "Any", /, *args: "Any", **kwargs: "Any") -> "Any":
        if not self._on:  # somebody kept this function
            return self._register(function, *args, **kwargs)
        who = sys._getframe(1).f_globals.get("__name__", "")  # noqa: SLF001  whose end it belongs to
        self._stash.exits.setdefault(who, []).append((function, args, kwargs))
        return function


class _Silence:
    """Sends what imports print to nowhere: it would come before the program's own output."""

    def __enter__(self) -> None:
        self._saved = [os.dup(1), os.dup(2)]
        nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        os.close(nowhere)

    def __exit__(self, *_: object) -> None:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        for number, saved in zip((1, 2), self._saved, strict=True):
            os.dup2(saved, number)
            os.close(saved)


def _filters_changed() -> None:
    getattr(_warnings, "_filters_mutated", lambda: None)()


def _renew_authkey(module: "Any") -> None:
    process = module.current_process()
    process.authkey = os.urandom(32)


# What would be the same in every clone of a template: made anew when a program gets it.
_RENEW: dict[str, "Callable[[Any], object]"] = {
    "random": lambda module: module.seed(),
    "numpy.random": lambda module: module.seed(),
    "_ssl": lambda module: module.RAND_add(os.urandom(32), 32.0),
    "multiprocessing.process": _renew_authkey,
}
