"""Calls that turn text or bytes into code or objects, and that reach things by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mayfly.scan.facts import UNKNOWN, Value
from mayfly.scan.python.attributes import attribute
from mayfly.scan.python.expressions import place_of_variable
from mayfly.scan.python.names import canonical
from mayfly.scan.values import MAX_ELEMENTS, taints_of, unknown

if TYPE_CHECKING:
    from collections.abc import Callable

    from mayfly.scan.python.site import Site

__all__ = ["CALLS"]

_CODE_KINDS = {"eval": "eval", "exec": "exec", "compile": "compile", "execfile": "exec"}


def _run_text(site: Site) -> Value:
    """`eval`, `exec`, `compile` and others: what is known of the text is read as a part of the program."""
    value = site.arg(0, "source", "stmt", "code", "expression")
    if value.origin == "code()":
        return unknown(*value.taints)  # judged when it was compiled
    how = _CODE_KINDS.get(site.function.origin, "exec")
    known = bool(value.consts)
    before = len(site.rec.facts)
    for text in value.texts:
        known = _read(site, text.strip(), deeper="decoded" in value.taints) and known
    site.rec.code(how, value, harmless=known and not value.prefix and not site.rec.reaches(before))
    return Value(taints=value.taints | taints_of([value]), origin="code()" if how == "compile" else "")


def _read(site: Site, text: str, *, deeper: bool) -> bool:
    return site.rec.nested(text, "python", deeper=deeper)


def _import(site: Site) -> Value:
    """`__import__`, `importlib.import_module`: a known name is an import like any other."""
    name = site.arg(0, "name")
    names = [c for c in name.consts if isinstance(c, str)]
    if not names:
        site.rec.code("import", name)
        return Value(taints=name.taints, origin="imported()")
    plain = site.function.origin == "importlib.import_module"
    if not plain or "decoded" in name.taints:
        site.rec.code("import", name, harmless="decoded" not in name.taints)
    for module in names:
        _read(site, f"import {module}", deeper=False)
    whole = names[0] if plain else names[0].partition(".")[0]
    return Value(origin=canonical(whole))


def _get_attribute(site: Site) -> Value:
    base, name = site.arg(0, "obj"), site.arg(1, "name")
    names = [c for c in name.consts if isinstance(c, str)]
    if not names:
        if base.origin and not base.ref and not base.origin.startswith("?.") and not base.origin.endswith(")"):
            site.rec.code("attribute", Value(taints=name.taints, origin=base.origin))
        return unknown(*base.taints)
    found = attribute(site.walk, base, names[0], None)
    if base.origin and found.origin and not base.origin.endswith("()"):
        site.rec.code("attribute", Value(consts=(found.origin,), origin=base.origin), harmless=True)
    return found


def _load(form: str) -> Callable[[Site], Value]:
    def handler(site: Site) -> Value:
        value = site.arg(0)
        if form == "yaml" and not _unsafe_yaml(site):
            return unknown(*site.taints)
        if form == "numpy" and not site.true("allow_pickle"):
            site.rec.file("read", value)
            return unknown(*site.taints)
        if form == "torch" and site.true("weights_only"):
            return unknown(*site.taints)
        if form == "keras" and False not in site.arg(-1, "safe_mode").consts:
            site.rec.file("read", value)
            return unknown(*site.taints)
        site.rec.load(form, value)
        return Value(taints=site.taints | {"loaded"})

    return handler


def _unsafe_yaml(site: Site) -> bool:
    if site.function.origin.endswith(("unsafe_load", "unsafe_load_all")) or site.function.origin.startswith("unsafe-"):
        return True
    loader = site.arg(1, "Loader").origin.rpartition(".")[2]
    return "Safe" not in loader and loader not in ("BaseLoader", "FullLoader", "CBaseLoader")


def _yaml_object(site: Site) -> Value:
    """`ruamel.yaml.YAML(typ='unsafe')`: what it loads may be any object."""
    unsafe = "unsafe" in site.arg(0, "typ").texts
    return Value(origin="unsafe-yaml" if unsafe else f"{site.function.origin}()", taints=site.taints)


def _environment(site: Site) -> Value:
    """`os.getenv(name)`, `os.environ.get(name)`."""
    names = site.arg(0, "key").texts
    for name in names or ("?",):
        site.rec.env(name)
    return place_of_variable(names[0] if len(names) == 1 else "")


def _whole_environment(site: Site) -> Value:
    """`os.environ.items()`: all of it."""
    site.rec.env(how=site.method)
    return Value(taints=frozenset({"env-all"}), elements=(Value(elements=(unknown("env-all"), unknown("env-all"))),))


def _environment_copy(_site: Site) -> Value:
    return Value(taints=frozenset({"env-all"}), origin="environment-copy")


def _show(site: Site) -> Value:
    """`print(os.environ)`, `json.dumps(dict(os.environ))`."""
    if any(v.origin in ("os.environ", "environment-copy") for v in site.args):
        site.rec.env(how="show")
    return Value(
        consts=site.args[0].consts if len(site.args) == 1 and isinstance(site.args[0].consts[:1], str) else (),
        taints=site.taints,
        keys=site.args[0].keys if site.args else (),
    )


def _copy(site: Site) -> Value:
    first = site.arg(0)
    if first.origin == "os.environ":
        return Value(taints=first.taints, origin="environment-copy")
    values = tuple(site.kwargs.values())
    return Value(
        taints=site.taints,
        elements=((first.elements or ()) + values)[:MAX_ELEMENTS],
        keys=(*first.keys, *site.kwargs)[:MAX_ELEMENTS],
    )


def _namespace(site: Site) -> Value:
    return Value(origin=f"{site.function.origin}()")


def _spec(site: Site) -> Value:
    """`importlib.util.find_spec(name)`, and the module made from it."""
    first = site.arg(0, "name", "spec")
    if site.function.origin.endswith("find_spec"):
        return Value(origin="module-spec", consts=first.consts, taints=first.taints)
    names = [c for c in first.consts if isinstance(c, str)]
    return Value(origin=canonical(names[0]) if names else "imported()")


def _getter(site: Site) -> Value:
    """`operator.attrgetter(name)`, `operator.methodcaller(name, *args)`: a function made of a name."""
    first = site.arg(0)
    return Value(origin=f"{site.function.origin}()", consts=first.consts, elements=tuple(site.args[1:]))


def _apply_getter(site: Site) -> Value:
    from mayfly.scan.python.calls import perform

    names = [c for c in site.function.consts if isinstance(c, str)]
    if not names:
        return unknown(*site.taints)
    target = site.arg(0)
    found = attribute(site.walk, target, names[0], None)
    if target.origin and found.origin:
        site.rec.code("attribute", Value(consts=(found.origin,), origin=target.origin), harmless=True)
    if site.function.origin == "operator.attrgetter()":
        return found
    args = list(site.function.elements or ())
    return perform(site.walk, found, target, args, {}, method=names[0])


def _run_file(site: Site) -> Value:
    site.rec.code("exec", Value(taints=site.taints | {"file"}))
    return unknown()


def _input(_site: Site) -> Value:
    return unknown("input")


def _identity(site: Site) -> Value:
    """Who runs the program, and where."""
    return Value(taints=frozenset({"identity"}), origin=f"{site.function.origin}()")


def _code_object(site: Site) -> Value:
    site.rec.code("function", Value(taints=site.taints))
    return unknown()


def _set_variable(site: Site) -> Value:
    """`os.putenv(name, value)`, `os.environ.setdefault(name, value)`."""
    for name in site.arg(0).texts[:4]:
        site.rec.call(f"set-{name}"[:100], [site.arg(1)])
    return UNKNOWN


CALLS: dict[str, Callable[[Site], Value]] = {
    **dict.fromkeys(("os.putenv", "os.environ.setdefault"), _set_variable),
    **dict.fromkeys(("eval", "exec", "compile", "execfile", "code.InteractiveInterpreter().runsource",
                     "code.InteractiveInterpreter().runcode",
            "code.InteractiveConsole().push",
            "code.InteractiveConsole().runsource", "timeit.timeit", "timeit.repeat", "cProfile.run",
                     "profile.run", "pdb.run", "doctest.script_from_examples", "trace.Trace().run", "ast.parse()"),
                    _run_text),
    **dict.fromkeys(("__import__", "importlib.import_module"), _import),
    **dict.fromkeys(("importlib.util.find_spec", "importlib.util.module_from_spec"), _spec),
    **dict.fromkeys(("operator.attrgetter", "operator.methodcaller"), _getter),
    **dict.fromkeys(("operator.attrgetter()", "operator.methodcaller()"), _apply_getter),
    **dict.fromkeys(("runpy.run_path", "runpy.run_module"), _run_file),
    **dict.fromkeys(("getattr", "object.__getattribute__"), _get_attribute),
    **dict.fromkeys(("pickle.loads", "pickle.load", "pickle.Unpickler", "dill.loads", "dill.load", "cloudpickle.loads",
                     "cloudpickle.load", "pandas.read_pickle", "joblib.load", "sklearn.externals.joblib.load",
                     "hickle.load", "shelve.open", "pickle._loads"),
                    _load("pickle")),
    "numpy.load": _load("numpy"),
    "torch.load": _load("torch"),
    **dict.fromkeys(("marshal.loads", "marshal.load"), _load("marshal")),
    **dict.fromkeys(("yaml.load", "yaml.unsafe_load", "yaml.unsafe_load_all", "yaml.full_load_all", "yaml.load_all",
                     "ruamel.yaml.load", "unsafe-yaml.load", "unsafe-yaml.load_all"),
                    _load("yaml")),
    "ruamel.yaml.YAML": _yaml_object,
    **dict.fromkeys(("jsonpickle.decode", "jsonpickle.loads", "jsonpickle.unpickler.decode"), _load("jsonpickle")),
    **dict.fromkeys(("keras.models.load_model", "keras.saving.load_model", "tensorflow.keras.models.load_model"),
                    _load("keras")),
    **dict.fromkeys(("os.getenv", "os.environ.get", "os.environ.pop", "environment-copy.get"), _environment),
    **dict.fromkeys(("os.environ.items", "os.environ.values", "os.environ.keys", "environment-copy.items"),
                    _whole_environment),
    "os.environ.copy": _environment_copy,
    **dict.fromkeys(("print", "json.dumps", "repr", "pprint.pprint", "pprint.pformat", "yaml.dump",
    "logging.info"), _show),
    "dict": _copy,
    **dict.fromkeys(("globals", "locals", "vars"), _namespace),
    **dict.fromkeys(("socket.gethostname", "socket.getfqdn", "getpass.getuser", "os.getlogin", "platform.node",
                     "uuid.getnode"), _identity),
    **dict.fromkeys(("input", "raw_input", "sys.stdin.read", "sys.stdin.readline", "getpass.getpass"), _input),
    **dict.fromkeys(("types.FunctionType", "types.CodeType", "types.LambdaType"), _code_object),
}  # fmt: skip
