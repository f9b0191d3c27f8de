"""The runner: an interpreter that has started, and waits with its start-up done for the program to run.

Python imports a module of this name at the end of its own start-up, before it opens the script it was given.
The agent starts `python3 <home>/<slot>.pyc` with this directory on PYTHONPATH; the import blocks here until the
agent sends a program. Then the program is written to its file, compiled, and left at `<slot>.pyc`, and this
module returns: the interpreter goes on by itself and runs that script, as it runs any. So no frame of ours lies
below the program, and tracebacks, exit codes, `sys.exit`, threads and `atexit` are CPython's own.

Whatever the shortcut cannot reproduce (a program that does not compile, variables that Python reads while it
starts) is left to `execve` of a fresh interpreter on the same file, which is slower and exact.

The modules named in `MAYFLY_RUNNER_PRELOAD` are imported first, and put aside (see `preload.py`); then the control
socket says so, in one line. One that could not be given a program any more ends by itself.

An interpreter that is to keep state (`MAYFLY_CONTEXT` among the variables) is started the same way; its program is
Mayfly's own, is written to no file, and keeps descriptor 3 to be told what to run.

Descriptors: 3 is the control socket, closed when the program is ready to start, or used to say what failed;
4 is a memory file with the request: NUL-separated fields, then the program (see `mayfly.agent.process`).
"""

import os
import sys

__all__ = ["run_waiting"]

_CONTROL = 3
_REQUEST = 4
_START_VARIABLES = ("PYTHON", "LC_", "LD_", "MALLOC_", "GLIBC_")
_START_NAMES = {"LANG", "LANGUAGE", "TZ", "HOME", "PATH"}
# read by what is preloaded while it is imported
_PRELOAD_VARIABLES = ("MPL", "NUMPY", "NPY_", "OPENBLAS_", "OMP_", "PANDAS_", "XDG_", "SSL")


def run_waiting(slot: str, start_variables: tuple[str, ...] = _START_VARIABLES) -> None:
    """Waits for one request; returns when the interpreter may go on to its script, or replaces the process.

    It is replaced when a variable of the request begins with one of `start_variables` and is not what it was.
    """
    os.set_inheritable(_CONTROL, False)
    os.set_inheritable(_REQUEST, False)
    word = _line()
    if not word:
        os._exit(0)  # the agent is gone or does not need this runner
    fields_bytes, program_bytes = (int(part) for part in word.split())
    fields = os.pread(_REQUEST, fields_bytes, 0).decode("utf-8", "surrogateescape").split("\0")
    source = os.pread(_REQUEST, program_bytes, fields_bytes)
    os.close(_REQUEST)
    filename, rlimits, count = fields[0], fields[1], int(fields[2])
    args = fields[3 : 3 + count]
    env = dict(field.split("=", 1) for field in fields[3 + count :])
    is_context = bool(env.pop("MAYFLY_CONTEXT", ""))
    try:
        _limit(rlimits)
        if not is_context:
            _write(filename, source)
        warm = _fits(env, start_variables) and _prepare(slot, filename, source)
        if is_context and not warm:
            os.set_inheritable(_CONTROL, True)
            os.execve(sys.executable, ["python3", "-c", source.decode()], env)  # noqa: S606
        if not warm:
            os.execve(sys.executable, ["python3", filename, *args], env)  # noqa: S606  a fresh interpreter
    except (OSError, ValueError) as error:
        os.write(_CONTROL, f"{filename}: {error}".encode())
        os._exit(127)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = [filename, *args]
    sys.orig_argv = ["python3", *sys.argv]
    _reseed()
    if not is_context:
        os.close(_CONTROL)


def _line() -> bytes:
    """One line from the agent and no byte more: the rest is for the program of a context."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(_CONTROL, 1)
        if not byte:
            return b""
        line += byte
    return line


def _limit(rlimits: str) -> None:
    """Sets `number:limit` pairs, separated by spaces."""
    if rlimits:
        import resource

        for pair in rlimits.split():
            which, limit = (int(part) for part in pair.split(":"))
            resource.setrlimit(which, (limit, limit))
        del sys.modules["resource"]


def _fits(env: dict[str, str], prefixes: tuple[str, ...]) -> bool:
    """Whether the start-up that was done is the one that `env` asks for."""
    names = {name for name in env.keys() | os.environ.keys() if name in _START_NAMES or name.startswith(prefixes)}
    return all(env.get(name) == os.environ.get(name) for name in names)


def _prepare(slot: str, filename: str, source: bytes) -> bool:
    """Leaves the compiled program at `slot`; False when it must be left to a fresh interpreter."""
    import marshal

    external = sys.modules["_frozen_importlib_external"]
    path = os.path.join(os.path.dirname(slot), filename)
    try:
        code = marshal.dumps(compile(source, path, "exec", dont_inherit=True))
    except Exception:  # noqa: BLE001  a program that does not compile: CPython itself says it best
        return False
    _write(slot, external.MAGIC_NUMBER + bytes(12) + code)
    loader_name = "SourcelessFileLoader"
    real_loader = getattr(external, loader_name)

    def loader_of_main(_name: str, _path: str) -> object:
        # The interpreter asks for this loader between opening the script and running it.
        setattr(external, loader_name, real_loader)
        os.unlink(slot)
        del sys.path_importer_cache[slot]
        return external.SourceFileLoader("__main__", path)

    setattr(external, loader_name, loader_of_main)
    # The interpreter first asks whether the script is a directory or archive to import from; the answer is no, and
    # `path` has it too afterwards, as under plain Python.
    sys.path_importer_cache[slot] = None
    sys.path_importer_cache[path] = None
    main = sys.modules["__main__"]
    main.__file__ = path
    main.__cached__ = None  # type: ignore[attr-defined]
    return True


def _write(path: str, content: bytes) -> None:
    # Not through a link that an earlier program of the same user left there.
    if os.path.islink(path):
        os.unlink(path)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o644)
    try:
        while content:
            content = content[os.write(fd, content) :]
    finally:
        os.close(fd)


def _reseed() -> None:
    """Generators that were seeded before this clone got its own entropy start anew."""
    for name in ("random", "numpy.random"):
        if name in sys.modules:
            sys.modules[name].seed()


def _step_aside() -> None:
    """Leaves things as if this module had never been found, and imports the system's own, if there is one."""
    here = os.path.dirname(__file__)
    sys.path[:] = [entry for entry in sys.path if entry != here]
    os.environ.pop("PYTHONPATH", None)
    sys.modules.pop("sitecustomize", None)
    sys.path_importer_cache.pop(here, None)
    try:
        import sitecustomize  # type: ignore[import-not-found]  # noqa: F401  another one, now that this directory is off the path
    except ImportError:
        pass


def _settle() -> None:
    """Keeps the collector off what the start-up made: it would write to every page, which clones share."""
    import gc

    gc.freeze()
    del sys.modules["gc"]


def _preload(names: list[str]) -> None:
    """Imports the modules and puts them aside; does not return when that went wrong."""
    try:
        import preload  # type: ignore[import-not-found]  # from the directory of this file

        del sys.modules["preload"]
        _step_aside()
        environ = dict(os.environ)
        _, failures = preload.fill(names)
        words = "; ".join(["ready", *failures])
    except BaseException as error:  # noqa: BLE001  whatever it is: this interpreter is no good
        words = f"{type(error).__name__}: {error}"
        os.write(_CONTROL, (words[:1000].replace("\n", " ") + "\n").encode("utf-8", "replace"))
        os._exit(127)
    os.environ.clear()
    os.environ.update(environ)
    import gc

    gc.collect()
    del sys.modules["gc"]
    _settle()
    os.write(_CONTROL, (words[:1000].replace("\n", " ") + "\n").encode("utf-8", "replace"))


def _start() -> None:
    slot = os.environ.pop("MAYFLY_RUNNER_SLOT", "")
    names = os.environ.pop("MAYFLY_RUNNER_PRELOAD", "").split()
    if not slot:
        return
    if names:
        _preload(names)
        run_waiting(slot, _START_VARIABLES + _PRELOAD_VARIABLES)
    else:
        _step_aside()
        _settle()
        run_waiting(slot)


_start()
