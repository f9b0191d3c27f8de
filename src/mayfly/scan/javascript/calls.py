"""What JavaScript calls do: Node's modules, globals and the usual packages."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from mayfly.scan.facts import UNKNOWN, Value
from mayfly.scan.paths import classify
from mayfly.scan.values import concat, decode, taints_of, unknown

if TYPE_CHECKING:
    from collections.abc import Callable

    from mayfly.scan.facts import FileOp
    from mayfly.scan.javascript.walk import ScriptWalk

__all__ = ["perform"]

_BIG = 1 << 30


@dataclass(slots=True)
class _Call:
    walk: ScriptWalk
    name: str
    receiver: Value
    method: str
    args: list[Value]

    def arg(self, number: int) -> Value:
        return self.args[number] if number < len(self.args) else UNKNOWN

    def option(self, name: str) -> Value:
        """A member of an object among the arguments."""
        for value in self.args:
            if value.elements and name in value.keys:
                return value.elements[min(value.keys.index(name), len(value.elements) - 1)]
        return UNKNOWN


def perform(walk: ScriptWalk, function: Value, receiver: Value, method: str, args: list[Value]) -> Value:
    """What a call does."""
    if function.ref is not None:
        _run_callbacks(walk, args, UNKNOWN)
        return walk.inline(function.ref, args)
    name = _canonical(function.origin)
    call = _Call(walk, name, receiver, method, args)
    handler = _CALLS.get(name) or _METHODS.get(method)
    if handler is not None:
        return handler(call)
    given = Value(taints=receiver.taints) if receiver.taints else UNKNOWN
    _run_callbacks(walk, args, given)
    taints = taints_of([receiver, *args]) | function.taints
    made = f"{name}()" if name and not name.startswith("?.") else ""
    return Value(taints=taints, origin=made[-200:])


def _run_callbacks(walk: ScriptWalk, args: list[Value], given: Value) -> None:
    """Functions handed to a call are run with what the call is about."""
    for value in args:
        if value.ref is not None:
            walk.inline(value.ref, [given, given])


def _canonical(origin: str) -> str:
    name = re.sub(r"^(?:globalThis|window|global|self)\.", "", origin)
    name = name.replace("fs.promises.", "fs.").replace("fs/promises.", "fs.").replace("fs-extra.", "fs.")
    name = re.sub(r"^(?:child_process|cp)\.", "child_process.", name)
    name = re.sub(r"^https\.", "http.", name)
    if name.startswith("fs.") and name.endswith("Sync"):
        name = name.removesuffix("Sync")
    return name


def _require(call: _Call) -> Value:
    modules = call.arg(0).texts
    if not modules:
        call.walk.rec.code("import", call.arg(0))
        return unknown()
    module = modules[0].removeprefix("node:")
    call.walk.note_import(module)
    return Value(origin=module)


def _content(path: Value) -> frozenset[str]:
    kinds = {classify(text) for text in path.texts}
    secret = kinds & {"credentials", "accounts", "history", "process"}
    return frozenset({"file", "secret"}) if secret else frozenset({"file"})


def _file(op: FileOp) -> Callable[[_Call], Value]:
    def handler(call: _Call) -> Value:
        path = call.arg(0)
        chosen: FileOp = op
        if op == "delete" and any(call.option("recursive").consts):
            chosen = "delete-tree"
        content = Value(consts=call.arg(1).consts, taints=taints_of([call.arg(1)])) if op == "write" else UNKNOWN
        mode = next((n for n in call.arg(1).numbers if isinstance(n, int)), None) if op == "chmod" else None
        call.walk.rec.file(chosen, path, content=content, mode=mode)
        made = Value(taints=_content(path)) if op == "read" else UNKNOWN
        _run_callbacks(call.walk, call.args, made)
        return made

    return handler


def _copy(call: _Call) -> Value:
    rename = call.name == "fs.rename"
    call.walk.rec.file("rename" if rename else "read", call.arg(0))
    call.walk.rec.file("write", call.arg(1), content=Value(taints=_content(call.arg(0))))
    return UNKNOWN


def _join_path(call: _Call) -> Value:
    parts: list[Value] = []
    for value in call.args:
        parts += [Value(consts=("/",)), value] if parts else [value]
    return concat(parts) if parts else UNKNOWN


def _shell(call: _Call) -> Value:
    out = call.walk.rec.shell(call.arg(0))
    _run_callbacks(call.walk, call.args, out)
    return Value(taints=out.taints | {"output"}, origin="child()")


def _spawn(call: _Call) -> Value:
    words = list(call.arg(1).elements or ()) if not call.arg(1).keys else []
    shell = call.option("shell")
    if any(shell.consts):
        out = call.walk.rec.shell(concat([p for v in (call.arg(0), *words) for p in (v, Value(consts=(" ",)))][:-1]))
    else:
        out = call.walk.rec.start([call.arg(0), *words])
    _run_callbacks(call.walk, call.args, out)
    return Value(taints=out.taints | {"output", "own-child"}, origin="child()")


def _eval(call: _Call) -> Value:
    value = call.args[-1] if call.args else UNKNOWN
    if value.ref is not None:  # setTimeout(function)
        return call.walk.inline(value.ref, [])
    rec = call.walk.rec
    before = len(rec.facts)
    known = bool(value.consts)
    for text in value.texts:
        known = rec.nested(text, "javascript", deeper="decoded" in value.taints) and known
    how = "function" if call.name == "Function" and not known else "eval"
    rec.code(how, value, harmless=known and not rec.reaches(before))
    return unknown(*value.taints)


def _timer(call: _Call) -> Value:
    """`setTimeout(text)` is eval; `setTimeout(f)` runs f."""
    first = call.arg(0)
    if first.texts:
        return _eval(_Call(call.walk, "eval", UNKNOWN, "", [first]))
    _run_callbacks(call.walk, call.args, UNKNOWN)
    return UNKNOWN


def _request(call: _Call) -> Value:
    """`fetch`, `axios.*`, `http.get`: where to, and with what."""
    target = call.arg(0)
    if target.keys:
        host = call.option("hostname")
        target = host if host.texts else call.option("host")
        target = target if target.texts else call.option("url")
    body = [call.option(name) for name in ("body", "data", "headers", "params", "form", "json")]
    if call.name.endswith((".post", ".put", ".patch")):
        body.append(call.arg(1))
    method = (call.option("method").texts or ("",))[0].upper()
    carried = taints_of(body) | target.taints
    sends = method in ("POST", "PUT", "PATCH") or call.name.endswith((".post", ".put", ".patch"))
    keys = tuple(key for part in body for key in part.keys)
    rec = call.walk.rec
    rec.net("send" if sends else "fetch", target, data=Value(taints=carried, keys=keys))
    answer = Value(taints=frozenset({"net"}), origin="response()")
    _run_callbacks(call.walk, call.args, answer)
    return answer


def _connect(call: _Call) -> Value:
    port, host = call.arg(0), call.arg(1)
    if port.keys:
        port, host = call.option("port"), call.option("host")
    elif not port.numbers:
        host = port
    call.walk.rec.net("connect", host, port)
    made = Value(taints=frozenset({"net", "socket"}), origin="net.Socket()")
    _run_callbacks(call.walk, call.args, made)
    return made


def _listen(call: _Call) -> Value:
    host = next((v for v in call.args if v.texts), UNKNOWN)
    call.walk.rec.net("listen", host, call.arg(0))
    _run_callbacks(call.walk, call.args, UNKNOWN)
    return UNKNOWN


def _server(call: _Call) -> Value:
    _run_callbacks(call.walk, call.args, Value(taints=frozenset({"net"}), origin="net.Socket()"))
    return Value(origin="server()")


def _pipe(call: _Call) -> Value:
    """`socket.pipe(shell.stdin)`: a shell tied to a connection."""
    parts = (call.receiver, call.arg(0))
    net = any("socket" in part.taints or part.origin.startswith("net.Socket()") for part in parts)
    if net and any(part.origin.startswith("child()") for part in parts):
        call.walk.rec.call("network-shell", [call.arg(0)])
    return call.arg(0)


def _kill(call: _Call) -> Value:
    if call.arg(1).consts[:1] != (0,) and not call.arg(0).origin.startswith("process.pid"):
        call.walk.rec.kill("pid", call.arg(0))
    return UNKNOWN


def _from(call: _Call) -> Value:
    """`Buffer.from(text, 'base64')`."""
    how = (call.arg(1).texts or ("",))[0]
    if how in ("base64", "base64url", "hex"):
        return decode(call.arg(0), "hex" if how == "hex" else "urlsafe_base64" if "url" in how else "base64", text=True)
    members = call.arg(0).elements
    if members and all(m.numbers for m in members):
        return Value(
            consts=("".join(chr(int(m.numbers[0]) & 0x10FFFF) for m in members),), taints=frozenset({"decoded"})
        )
    return call.arg(0)


def _char_codes(call: _Call) -> Value:
    if call.args and all(len(v.numbers) == 1 for v in call.args):
        text = "".join(chr(int(v.numbers[0]) & 0xFFFF) for v in call.args)
        return Value(consts=(text,), taints=frozenset({"decoded"}) if len(text) > 3 else frozenset())
    return Value(taints=taints_of(call.args))


def _allocate(call: _Call) -> Value:
    size = max((n for v in (*call.args, call.receiver) for n in v.numbers), default=0)
    unit = 8 if call.name in ("Array", "Float64Array") or call.method == "fill" else 1
    if _BIG <= size * unit < float("inf"):
        call.walk.rec.alloc(int(size * unit), "buffer")
    return UNKNOWN


def _repeat(call: _Call) -> Value:
    count = max(call.arg(0).numbers, default=0)
    size = len((call.receiver.texts or ("",))[0]) * count
    if _BIG <= size < float("inf"):
        call.walk.rec.alloc(int(size), "text")
    return Value(taints=call.receiver.taints)


def _string(change: Callable[[str, list[Any]], Any]) -> Callable[[_Call], Value]:
    """A method of a known text."""

    def handler(call: _Call) -> Value:
        known = [v.consts[0] for v in call.args if v.consts]
        taints = taints_of([call.receiver, *call.args])
        if not call.receiver.texts or len(known) != len(call.args):
            _run_callbacks(call.walk, call.args, Value(taints=call.receiver.taints))
            return Value(taints=taints, origin=call.receiver.origin)
        try:
            result = change(call.receiver.texts[0], known)
        except (TypeError, ValueError, IndexError):
            return Value(taints=taints)
        if isinstance(result, list):
            return Value(elements=tuple(Value(consts=(r,)) for r in result[:4096]), taints=taints)
        return Value(consts=(result,), taints=taints)

    return handler


def _join(call: _Call) -> Value:
    if call.name in ("path.join", "path.resolve"):
        return _join_path(call)
    members = call.receiver.elements
    separator = (call.arg(0).texts or (",",))[0] if call.args else ","
    if members is not None and all(m.texts for m in members):
        return Value(consts=(separator.join(m.texts[0] for m in members),), taints=taints_of([call.receiver]))
    return Value(taints=call.receiver.taints)


def _reverse(call: _Call) -> Value:
    members = call.receiver.elements
    return Value(elements=members[::-1] if members else None, taints=call.receiver.taints)


def _stringify(call: _Call) -> Value:
    first = call.arg(0)
    if first.origin == "process.env":
        call.walk.rec.env(how="dump")
    return Value(taints=taints_of(call.args), keys=first.keys)


def _show(call: _Call) -> Value:
    if any(v.origin == "process.env" for v in call.args):
        call.walk.rec.env(how="show")
    return UNKNOWN


def _load(call: _Call) -> Value:
    call.walk.rec.load("serialize", call.arg(0))
    return unknown("loaded")


def _then(call: _Call) -> Value:
    """`promise.then(f)`: f gets what the promise carries."""
    result = UNKNOWN
    for value in call.args:
        if value.ref is not None:
            result = call.walk.inline(value.ref, [Value(taints=call.receiver.taints, origin=call.receiver.origin)])
    return Value(consts=result.consts, taints=result.taints | call.receiver.taints, origin=result.origin)


_FILES: dict[str, FileOp] = {
    "readFile": "read", "createReadStream": "read", "open": "read", "readlink": "read", "writeFile": "write",
    "appendFile": "write", "createWriteStream": "write", "mkdir": "write", "unlink": "delete", "rm": "delete",
    "rmdir": "delete", "truncate": "write", "readdir": "list", "opendir": "list", "chmod": "chmod", "chown": "chown",
    "symlink": "link", "link": "link", "remove": "delete", "outputFile": "write", "emptyDir": "delete",
}  # fmt: skip
_CALLS: dict[str, Callable[[_Call], Value]] = {
    "require": _require,
    "import": _require,
    "module.require": _require,
    "process.mainModule.require": _require,
    **{f"fs.{name}": _file(op) for name, op in _FILES.items()},
    **dict.fromkeys(("fs.copyFile", "fs.rename", "fs.cp", "fs.copy"), _copy),
    **dict.fromkeys(("path.join", "path.resolve"), _join_path),
    "os.homedir": lambda _call: Value(consts=("~",)),
    **dict.fromkeys(("child_process.exec", "child_process.execSync", "shelljs.exec"), _shell),
    **dict.fromkeys(
        ("child_process.spawn", "child_process.spawnSync", "child_process.execFile", "child_process.execFileSync",
         "child_process.fork", "execa", "Bun.spawn", "Deno.run"),
        _spawn,
    ),
    **dict.fromkeys(
        ("eval", "Function", "vm.runInNewContext", "vm.runInThisContext", "vm.runInContext", "vm.Script", "execScript"),
        _eval,
    ),
    **dict.fromkeys(("setTimeout", "setInterval", "setImmediate"), _timer),
    **dict.fromkeys(
        ("fetch", "axios", "axios.get", "axios.post", "axios.put", "axios.request", "http.get", "http.request", "got",
         "got.post", "got.get", "request", "request.get", "request.post", "needle", "superagent.get", "superagent.post",
         "node-fetch", "navigator.sendBeacon", "undici.request", "WebSocket", "EventSource"),
        _request,
    ),
    **dict.fromkeys(("net.connect", "net.createConnection", "tls.connect", "net.Socket().connect"), _connect),
    **dict.fromkeys(("net.createServer", "http.createServer"), _server),
    "process.kill": _kill,
    **dict.fromkeys(("Buffer.from", "Buffer"), _from),
    "atob": lambda call: decode(call.arg(0), "base64", text=True),
    **dict.fromkeys(("unescape", "decodeURIComponent", "decodeURI"),
                    lambda call: Value(consts=tuple(unquote(t) for t in call.arg(0).texts), taints=call.arg(0).taints)),
    "String.fromCharCode": _char_codes,
    **dict.fromkeys(("Buffer.alloc", "Buffer.allocUnsafe", "ArrayBuffer", "Uint8Array", "Array",
    "Float64Array"), _allocate),
    "JSON.stringify": _stringify,
    **dict.fromkeys(("console.log", "console.error", "console.dir", "console.table"), _show),
    **dict.fromkeys(("node-serialize.unserialize", "serialize.unserialize", "v8.deserialize"), _load),
}  # fmt: skip
_METHODS: dict[str, Callable[[_Call], Value]] = {
    "listen": _listen,
    "pipe": _pipe,
    "then": _then,
    "join": _join,
    "reverse": _reverse,
    "repeat": _repeat,
    "toString": lambda call: call.receiver,
    "replace": _string(lambda text, args: text.replace(args[0], args[1], 1)),
    "replaceAll": _string(lambda text, args: text.replace(args[0], args[1])),
    "split": _string(lambda text, args: list(text) if not args or args[0] == "" else text.split(args[0])),
    "slice": _string(lambda text, args: text[slice(*(int(a) for a in args))]),
    "substring": _string(lambda text, args: text[slice(*(max(int(a), 0) for a in args))]),
    "toLowerCase": _string(lambda text, _args: text.lower()),
    "toUpperCase": _string(lambda text, _args: text.upper()),
    "trim": _string(lambda text, _args: text.strip()),
    "concat": lambda call: (
        concat([call.receiver, *call.args]) if call.receiver.texts else Value(taints=taints_of(call.args))
    ),
}
