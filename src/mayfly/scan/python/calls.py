"""Calls: into the program's own functions, into what the table knows, or into the unknown."""

from __future__ import annotations

import ast
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from mayfly.scan.facts import UNKNOWN, Value
from mayfly.scan.python.attributes import attribute
from mayfly.scan.python.expressions import EXPRESSIONS
from mayfly.scan.python.refs import ClassRef, FileRef, FunctionRef
from mayfly.scan.python.site import Site
from mayfly.scan.values import MAX_ELEMENTS, taints_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from mayfly.scan.python.walk import Walk

__all__ = ["call", "perform"]

_WATCHED = frozenset({
    "ctypes", "cffi", "mmap", "pty", "fcntl", "resource", "signal", "winreg", "win32api", "pynput", "keyboard", "mouse",
    "pyautogui", "pyperclip", "PIL", "mss", "cv2", "sounddevice", "pyaudio", "scapy", "pcapy", "nmap", "socket", "sys",
    "threading", "multiprocessing", "gc", "inspect", "platform", "getpass", "pwd", "grp", "psutil", "cryptography",
    "Crypto", "Cryptodome", "nacl", "pip", "ensurepip", "site", "crontab", "atexit", "faulthandler", "dis", "code",
    "codeop", "os", "uuid", "netifaces", "nltk", "torch", "spwd", "paramiko", "smtplib", "random", "time", "shutil",
    "concurrent", "itertools", "numpy", "np", "logging", "pyshark", "sklearn", "setproctitle", "prctl",
    "docker", "warnings",
})  # fmt: skip


_LENGTHENING = frozenset({"append", "extend", "insert"})


def call(walk: Walk, node: ast.Call) -> Value:
    """Evaluate a call: its parts first, then what it does."""
    receiver, name, called, kinds = UNKNOWN, "", node.func, EXPRESSIONS
    if isinstance(called, ast.Attribute):
        name = called.attr
        receiver = kinds[called.value.__class__](walk, called.value)
        function = attribute(walk, receiver, name, called)
    else:
        function = kinds[called.__class__](walk, called)
    args: list[Value] = []
    for arg in node.args:
        if arg.__class__ is ast.Starred:
            value = kinds[arg.value.__class__](walk, arg.value)
            args += (value.elements or (Value(taints=value.taints),))[:MAX_ELEMENTS]
        else:
            args.append(kinds[arg.__class__](walk, arg))
    kwargs: dict[str, Value] = {}
    for keyword in node.keywords:
        value = kinds[keyword.value.__class__](walk, keyword.value)
        if keyword.arg is None and value.elements and len(value.keys) == len(value.elements):
            kwargs.update(zip(value.keys, value.elements, strict=True))
        else:
            kwargs[keyword.arg or "**"] = value
    rec = walk.rec
    rec.line, rec.column = node.lineno, node.col_offset + 1
    if receiver.elements is not None and name in _LENGTHENING and args:
        _lengthen(walk, node, receiver, args[-1])
    return perform(walk, function, receiver, args, kwargs, method=name)


def _lengthen(walk: Walk, node: ast.Call, receiver: Value, value: Value) -> None:
    """`command.append(x)`: the list that a name stands for gets longer."""
    if isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
        more = value.elements or () if node.func.attr == "extend" else (value,)
        members = ((receiver.elements or ()) + more)[:256]
        walk.bind(node.func.value, Value(elements=members, taints=receiver.taints | value.taints, keys=receiver.keys))


def perform(
    walk: Walk, function: Value, receiver: Value, args: list[Value], kwargs: dict[str, Value], *, method: str = ""
) -> Value:
    """What a call with known parts does."""
    ref = function.ref
    if ref is not None:
        if isinstance(ref, FunctionRef):
            _pass_on(walk, function, args, kwargs)
            return walk.inline(ref, args, kwargs)
        if isinstance(ref, ClassRef):
            return _construct(walk, args, kwargs, ref)
    known = _known(function.origin)
    if known.watched:
        walk.rec.call(function.origin, args, kwargs)
    handler = known.handler
    if handler is None and method and (known.unnamed or receiver.elements is not None or receiver.consts):
        handler = walk.methods.get(method)
    if handler is not None:
        return handler(Site(walk, function, receiver, args, kwargs, method))
    _pass_on(walk, function, args, kwargs)
    taints = taints_of([receiver, *args, *kwargs.values()])
    if function.taints:
        taints |= function.taints
    made = known.made
    if made is not UNKNOWN:
        return Value(taints=taints, origin=made.origin) if taints else made
    elements = receiver.elements
    return Value(taints=taints, elements=elements) if taints or elements is not None else UNKNOWN


class _Known(NamedTuple):
    """What a name alone tells of a call: whether rules ask for it, what it does, and what it makes."""

    watched: bool
    handler: Callable[[Site], Value] | None
    unnamed: bool
    made: Value


@lru_cache(maxsize=4096)
def _known(origin: str) -> _Known:
    from mayfly.scan.python.table import TABLE

    nameless = not origin or origin.startswith("?.")
    return _Known(
        watched=origin.partition(".")[0] in _WATCHED,
        handler=TABLE.get(origin),
        unnamed=origin.startswith(("?.", "open()", ".")) or "()" in origin,
        made=UNKNOWN if nameless else Value(origin=f"{origin}()"[-200:]),
    )


def _construct(walk: Walk, args: list[Value], kwargs: dict[str, Value], cls: ClassRef) -> Value:
    """An instance of a class of the program: its `__init__` is walked."""
    instance = Value(ref=ClassRef(cls.node, cls.names, cls.bases, instance=True))
    start = cls.names.get("__init__")
    if cls.instance:
        start = cls.names.get("__call__")
    if start is not None and isinstance(start.ref, FunctionRef):
        bound = FunctionRef(start.ref.node, start.ref.scopes, start.ref.defaults, bound=instance)
        result = walk.inline(bound, args, kwargs)
        if cls.instance:
            return result
    return instance


def _pass_on(walk: Walk, called: Value, args: list[Value], kwargs: dict[str, Value]) -> None:
    """A function handed to another is called there: `Thread(target=f, args=(x,))`, `map(f, xs)`, `submit(f, x)`."""
    table = walk.table
    for value in (*args, *kwargs.values()) if kwargs else args:
        if value.ref is not None or value.origin in table:
            break
    else:
        return
    rest = kwargs.get("args")
    for number, value in enumerate([*args, *(v for k, v in kwargs.items() if k not in ("args", "kwargs"))]):
        function = value.ref
        known = isinstance(function, FunctionRef) or value.origin in table
        if not known or isinstance(function, FileRef):
            continue
        after = args[number + 1 :] if number < len(args) else []
        given = list(rest.elements) if rest is not None and rest.elements else list(after)
        if called.origin == "map":
            given = [Value(consts=v.consts, taints=taints_of([v]), elements=None) if v.elements is None
                     else v.elements[0] if v.elements else UNKNOWN for v in given]  # fmt: skip
        perform(walk, value, UNKNOWN, given, {})
