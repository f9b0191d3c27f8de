"""Calls that use files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mayfly.scan.facts import UNKNOWN, Value
from mayfly.scan.paths import classify
from mayfly.scan.python.refs import FileRef
from mayfly.scan.values import concat, taints_of, unknown

if TYPE_CHECKING:
    from collections.abc import Callable

    from mayfly.scan.facts import FileOp
    from mayfly.scan.python.site import Site

__all__ = ["CALLS", "METHODS"]

_SECRET = frozenset({"credentials", "accounts", "history", "process"})

_STARTERS = ("exec(", "eval(", "system(", "Popen(")
_MAX_DROPPED = 64 * 1024


def _drops(text: str) -> bool:
    """True for a text that reads like a program which fetches and runs."""
    return (
        len(text) <= _MAX_DROPPED
        and "import" in text
        and any(sign in text for sign in _STARTERS)
        and ("urlopen" in text or "requests" in text or "urllib" in text or "b64decode" in text)
    )


def _content(path: Value) -> frozenset[str]:
    """What is carried by what was read from a path."""
    kinds = {classify(text) for text in path.texts}
    extra = {"secret"} if kinds & _SECRET else set()
    return frozenset({"file", *extra}) | (path.taints & {"self", "walk"})


def _open(site: Site) -> Value:
    path = site.arg(0, "file", "path", "filename")
    mode = site.arg(1, "mode", "flags")
    flags = (mode.origin, *mode.taints)
    writes = any(set(text) & set("wax+") for text in mode.texts) or any("O_WRONLY" in f or "O_RDWR" in f for f in flags)
    if not mode.texts and (mode.taints or mode.consts) and site.function.origin == "os.open":
        writes = True
    site.rec.file("write" if writes else "read", path)
    return Value(origin="open()", taints=frozenset() if writes else _content(path), ref=FileRef(path, writes))


def _write(site: Site) -> Value:
    handle = site.receiver.ref
    content = site.arg(0)
    for text in content.texts[:4]:
        # A program that is written down to be run: judged where it is written.
        if _drops(text):
            site.rec.nested(text, "python", deeper=False)
    if isinstance(handle, FileRef):
        site.rec.file("write", handle.path, content=Value(consts=content.consts, taints=taints_of([content])))
    return UNKNOWN


def _dump(site: Site) -> Value:
    """`json.dump(obj, f)` and its kin."""
    handle = site.arg(1, "fp", "file", "stream").ref
    content = site.arg(0)
    if content.origin == "os.environ":
        site.rec.env(how="dump")
    if isinstance(handle, FileRef):
        site.rec.file("write", handle.path, content=Value(taints=taints_of([content])))
    return UNKNOWN


def _one(op: FileOp) -> Callable[[Site], Value]:
    def handler(site: Site) -> Value:
        path = site.arg(0, "path", "src", "name", "top", "filenames", "files")
        if path.elements and not path.consts:
            for member in path.elements[:64]:
                site.rec.file(op, member)
            return Value(taints=frozenset().union(*(_content(member) for member in path.elements[:64])))
        site.rec.file(op, path)
        if op == "list":
            return Value(taints=path.taints | {"walk"}, origin="listing()", prefix=_directory(path))
        return Value(taints=_content(path)) if op == "read" else UNKNOWN

    return handler


def _directory(path: Value) -> str:
    text = (path.texts or ("",))[0]
    return text.rstrip("/") + "/" if text not in ("", ".") else ""


def _chdir(site: Site) -> Value:
    site.rec.file("list", site.arg(0, "path"))
    site.rec.enter(site.arg(0, "path"))
    return UNKNOWN


def _walk(site: Site) -> Value:
    """`os.walk`: each turn gives a directory, its directories and its files, all below the start."""
    top = site.arg(0, "top")
    site.rec.file("list", top)
    start = Value(prefix=_directory(top) or "", taints=top.taints | {"walk"})
    names = Value(elements=(unknown("walk"),), taints=frozenset({"walk"}))
    return Value(elements=(Value(elements=(start, names, names)),), taints=frozenset({"walk"}))


def _glob(site: Site) -> Value:
    pattern = site.arg(0, "pathname", "pattern")
    site.rec.file("list", pattern)
    starts = tuple(text.partition("*")[0] for text in pattern.texts)
    return Value(elements=(Value(prefix=(starts or ("",))[0], consts=pattern.consts, taints=frozenset({"walk"})),))


def _copy(site: Site) -> Value:
    source, goal = site.arg(0, "src"), site.arg(1, "dst")
    site.rec.file("read", source)
    site.rec.file("write", goal, content=Value(taints=_content(source) | source.taints))
    return UNKNOWN


def _rename(site: Site) -> Value:
    source, goal = site.arg(0, "src", "old"), site.arg(1, "dst", "new")
    site.rec.file("rename", source)
    site.rec.file("write", goal, content=Value(taints=_content(source)))
    return UNKNOWN


def _link(site: Site) -> Value:
    site.rec.file("link", site.arg(0, "src"))
    site.rec.file("write", site.arg(1, "dst"))
    return UNKNOWN


def _chmod(site: Site) -> Value:
    mode = site.arg(1, "mode")
    numbers = [n for n in mode.consts if isinstance(n, int)]
    bits = numbers[0] if numbers else 0o4000 if "S_ISUID" in mode.origin else None
    site.rec.file("chmod", site.arg(0, "path"), mode=bits)
    return UNKNOWN


def _path(site: Site) -> Value:
    """A `pathlib.Path`: its text travels with it."""
    parts: list[Value] = []
    for arg in site.args:
        parts += [Value(consts=("/",)), arg] if parts else [arg]
    joined = concat(parts) if parts else Value(consts=(".",))
    return Value(consts=joined.consts, prefix=joined.prefix, taints=joined.taints, origin="pathlib.Path()")


def _home(_site: Site) -> Value:
    return Value(consts=("~",), origin="pathlib.Path()")


def _path_join(site: Site) -> Value:
    parts: list[Value] = []
    for arg in site.args:
        if any(text.startswith("/") for text in arg.texts):
            parts = []
        parts += [Value(consts=("/",)), arg] if parts else [arg]
    joined = concat(parts) if parts else UNKNOWN
    taints = joined.taints | site.taints
    return Value(consts=joined.consts, prefix=joined.prefix, taints=taints, origin=site.receiver.origin)


def _same(site: Site) -> Value:
    """`expanduser`, `abspath`, `realpath`, `resolve`: the same place."""
    return site.arg(0, "path") if site.args else site.receiver


def _exists(site: Site) -> Value:
    path = site.arg(0, "path") if site.args or site.kwargs else site.receiver
    if path.texts:
        site.rec.call("file-test", [path])
    return UNKNOWN


def _on_path(op: FileOp, *, content: bool = False) -> Callable[[Site], Value]:
    """A method of a `pathlib.Path`."""

    def handler(site: Site) -> Value:
        written = Value(consts=site.arg(0).consts, taints=taints_of([site.arg(0)])) if content else UNKNOWN
        site.rec.file(op, site.receiver, content=written)
        if op == "list":
            found = Value(prefix=_directory(site.receiver), taints=frozenset({"walk"}), origin="pathlib.Path()")
            return Value(elements=(found,), taints=frozenset({"walk"}))
        return Value(taints=_content(site.receiver)) if op == "read" else UNKNOWN

    return handler


def _open_path(site: Site) -> Value:
    mode = site.arg(0, "mode")
    writes = any(set(text) & set("wax+") for text in mode.texts)
    site.rec.file("write" if writes else "read", site.receiver)
    taints = frozenset() if writes else _content(site.receiver)
    return Value(origin="open()", taints=taints, ref=FileRef(site.receiver, writes))


def _rename_path(site: Site) -> Value:
    site.rec.file("rename", site.receiver)
    site.rec.file("write", site.arg(0, "target"), content=Value(taints=_content(site.receiver)))
    return UNKNOWN


def _chmod_path(site: Site) -> Value:
    numbers = [n for n in site.arg(0, "mode").consts if isinstance(n, int)]
    site.rec.file("chmod", site.receiver, mode=numbers[0] if numbers else None)
    return UNKNOWN


def _archive(site: Site) -> Value:
    """`tarfile.open`, `zipfile.ZipFile`, `shutil.make_archive`."""
    if site.function.origin == "shutil.make_archive":
        site.rec.file("read", site.arg(2, "root_dir"))
        return UNKNOWN
    opened = _open(site)
    return Value(origin="archive()", taints=opened.taints, ref=opened.ref)


def _add_to_archive(site: Site) -> Value:
    path = site.arg(0, "name", "filename")
    if isinstance(site.receiver.ref, FileRef) and path.texts:
        site.rec.file("read", path)
    return UNKNOWN


def _write_to(site: Site) -> Value:
    """`frame.to_csv(path)`, `figure.savefig(path)`."""
    path = site.arg(0, "path_or_buf", "fname", "path", "excel_writer", "fp")
    if path.texts:
        site.rec.file("write", path)
    return UNKNOWN


_READ = _one("read")
CALLS: dict[str, Callable[[Site], Value]] = {
    **dict.fromkeys(("open", "os.open", "gzip.open", "bz2.open", "lzma.open", "aiofiles.open"), _open),
    **dict.fromkeys(("tarfile.open", "zipfile.ZipFile", "shutil.make_archive"), _archive),
    **dict.fromkeys(("json.dump", "pickle.dump", "yaml.dump", "marshal.dump", "toml.dump"), _dump),
    **dict.fromkeys(("os.remove", "os.unlink", "os.rmdir", "os.removedirs", "os.truncate"), _one("delete")),
    **dict.fromkeys(("shutil.rmtree",), _one("delete-tree")),
    **dict.fromkeys(("os.listdir", "os.scandir", "os.chroot"), _one("list")),
    "os.chdir": _chdir,
    **dict.fromkeys(("os.walk", "os.fwalk"), _walk),
    **dict.fromkeys(("glob.glob", "glob.iglob"), _glob),
    **dict.fromkeys(("shutil.copy", "shutil.copy2", "shutil.copyfile", "shutil.copytree"), _copy),
    **dict.fromkeys(("shutil.move", "os.rename", "os.replace", "os.renames"), _rename),
    **dict.fromkeys(("os.link", "os.symlink"), _link),
    **dict.fromkeys(("os.chmod", "os.lchmod"), _chmod),
    **dict.fromkeys(("os.chown", "os.lchown", "shutil.chown"), _one("chown")),
    **dict.fromkeys(("os.mkdir", "os.makedirs", "os.mknod", "os.mkfifo", "os.utime"), _one("write")),
    **dict.fromkeys(
        ("linecache.getlines", "linecache.getline", "pandas.read_csv", "pandas.read_json", "pandas.read_table",
         "pandas.read_fwf", "numpy.loadtxt", "numpy.genfromtxt", "numpy.fromfile", "sqlite3.connect", "fileinput.input",
         "configparser.ConfigParser().read", "configparser.RawConfigParser().read",
         "dotenv.load_dotenv", "dotenv.dotenv_values", "os.readlink", "os.path.getsize"),
        _READ,
    ),
    **dict.fromkeys(("pathlib.Path",), _path),
    **dict.fromkeys(("pathlib.Path.home", "pathlib.Path().home"), _home),
    **dict.fromkeys(("archive().write", "archive().add"), _add_to_archive),
    "os.path.join": _path_join,
    **dict.fromkeys(
        ("os.path.expanduser", "os.path.abspath", "os.path.realpath", "os.path.normpath", "os.path.expandvars",
         "os.fspath", "os.fsdecode", "os.fsencode"),
        _same,
    ),
    **dict.fromkeys(("os.path.exists", "os.path.isfile", "os.path.isdir", "os.stat", "os.access"), _exists),
    "pathlib.Path().open": _open_path,
    **dict.fromkeys(("pathlib.Path().read_text", "pathlib.Path().read_bytes"), _on_path("read")),
    **dict.fromkeys(("pathlib.Path().write_text", "pathlib.Path().write_bytes"), _on_path("write", content=True)),
    **dict.fromkeys(("pathlib.Path().touch", "pathlib.Path().mkdir", "pathlib.Path().symlink_to",
                     "pathlib.Path().hardlink_to"), _on_path("write")),
    **dict.fromkeys(("pathlib.Path().unlink", "pathlib.Path().rmdir"), _on_path("delete")),
    **dict.fromkeys(("pathlib.Path().rename", "pathlib.Path().replace"), _rename_path),
    "pathlib.Path().chmod": _chmod_path,
    **dict.fromkeys(("pathlib.Path().iterdir", "pathlib.Path().glob", "pathlib.Path().rglob", "pathlib.Path().walk"),
                    _on_path("list")),
    **dict.fromkeys(("pathlib.Path().exists", "pathlib.Path().is_file", "pathlib.Path().is_dir", "pathlib.Path().stat"),
                    _exists),
    **dict.fromkeys(("pathlib.Path().joinpath",), lambda site: _path_join(
        type(site)(site.walk, site.function, site.receiver, [site.receiver, *site.args], {}, ""))),
    **dict.fromkeys(("pathlib.Path().resolve", "pathlib.Path().absolute", "pathlib.Path().expanduser",
                     "pathlib.Path().as_posix"), _same),
}  # fmt: skip


def _reach(site: Site) -> Value:
    """`file.seek(n)`, `file.truncate(n)`: a file may be made as long as that."""
    if max(site.arg(1 if site.function.origin.startswith("os.") else 0).numbers, default=0) >= 1 << 32:
        site.rec.call("fill-disk", [])
    if site.function.origin == "os.truncate":
        site.rec.file("delete", site.arg(0, "path"))
    return UNKNOWN


CALLS |= dict.fromkeys(("open().seek", "open().truncate", "os.truncate", "os.ftruncate", "os.posix_fallocate"), _reach)
METHODS: dict[str, Callable[[Site], Value]] = {
    **dict.fromkeys(("write", "writelines"), _write),
    **dict.fromkeys(
        ("to_csv", "to_json", "to_excel", "to_parquet", "to_pickle", "savefig", "save", "tofile"), _write_to
    ),
    "add": _add_to_archive,
}
