"""Commands that make text of text: echo, base64, tr; and those that run it: eval, sh, python."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from mayfly.scan.commands.files import read_files
from mayfly.scan.facts import UNKNOWN, Value
from mayfly.scan.values import concat, decode, taints_of, unknown

if TYPE_CHECKING:
    from collections.abc import Callable

    from mayfly.scan.commands.command import Command


__all__ = ["TEXTS"]

_SHELLS = frozenset({"sh", "bash", "dash", "zsh", "ksh", "ash", "fish", "rbash"})


def _shell(call: Command) -> Value:
    """`sh -c TEXT`, `sh FILE`, or a shell fed by a pipe."""
    for number, text in enumerate(call.texts):
        if re.match(r"^-[a-z]*c$", text) and number + 1 < len(call.args):
            return call.rec.shell(call.args[number + 1], call.stdin)
    files = call.positional
    if not files and (call.stdin.texts or call.stdin.taints):
        return call.rec.shell(call.stdin)
    for file in files[:1]:
        if file.taints & {"net", "decoded"} and not file.texts:
            call.rec.shell(file)
        call.rec.command("run-file", [file], call.before)
    return unknown("output")


def _python(call: Command) -> Value:
    from mayfly.scan.commands.run import run_command

    rec = call.rec
    if (code := call.option("-c")) is not None:
        rec.code("exec", code, harmless=any(rec.nested(t, "python", deeper=False) for t in code.texts))
    elif (module := call.option("-m")) is not None and module.texts:
        number = call.texts.index("-m") if "-m" in call.texts else 0
        return run_command(rec, [module, *call.args[number + 2 :]], call.stdin, call.before)
    elif not call.positional and (call.stdin.texts or call.stdin.taints):
        known = any(rec.nested(t, "python", deeper="decoded" in call.stdin.taints) for t in call.stdin.texts)
        rec.code("exec", call.stdin, harmless=known)
    elif call.positional:
        rec.command("run-file", call.positional[:1], call.before)
    return unknown("output")


def _node(call: Command) -> Value:
    if (code := call.option("-e", "--eval", "-p")) is not None:
        for text in code.texts:
            call.rec.nested(text, "javascript", deeper=False)
    return unknown("output")


def _other_language(call: Command) -> Value:
    """Perl, Ruby, PHP, awk, Lua: not parsed; what reaches for a socket or a shell is told by the rules."""
    code = call.option("-e", "-r", "-E")
    if code is None and call.name in ("awk", "gawk", "mawk") and call.positional:
        code = call.positional[0]
    if code is not None:
        call.rec.call("foreign-code", [code])
    elif call.stdin.taints & {"net", "decoded"}:
        call.rec.code("exec", call.stdin)
    for file in call.positional[1:]:
        call.rec.file("read", file)
    return Value(taints=taints_of([call.stdin]) | {"output"})


def _eval(call: Command) -> Value:
    value = concat([part for arg in call.args for part in (arg, Value(consts=(" ",)))])
    known = False
    before = len(call.rec.facts)
    for text in value.texts:
        known = call.rec.nested(text, "bash", deeper="decoded" in value.taints) or known
    call.rec.code("eval", value, harmless=known and not value.prefix and not call.rec.reaches(before))
    return unknown("output")


def _echo(call: Command) -> Value:
    args = call.args
    if call.texts and re.match(r"^-[neE]+$", call.texts[0]):
        args = args[1:]
    if call.name == "printf" and args and "%" in (args[0].texts or ("",))[0]:
        args = [_filled(args[0], args[1:])]
    parts: list[Value] = []
    for arg in args:
        parts += [Value(consts=(" ",)), arg] if parts else [arg]
    text = concat(parts) if parts else Value(consts=("",))
    if "-e" in call.texts[:1] or call.name == "printf":
        return Value(consts=tuple(_unescape(c) for c in text.consts), prefix=_unescape(text.prefix), taints=text.taints)
    return text


def _filled(form: Value, args: list[Value]) -> Value:
    """`printf FORMAT ARGS`: each `%s` and its kin in order; arguments left over are filled in again."""
    pieces = re.split(r"%[-+ #0]*\d*(?:\.\d+)?[sbdiqxXc]", form.texts[0])
    parts: list[Value] = []
    left = list(args)
    for _ in range(max(1, -(-len(args) // max(len(pieces) - 1, 1)))):
        for number, piece in enumerate(pieces):
            parts.append(Value(consts=(piece.replace("%%", "%"),)))
            if number < len(pieces) - 1:
                parts.append(left.pop(0) if left else Value(consts=("",)))
    return concat(parts[:64])


def _unescape(text: str) -> str:
    text = re.sub(r"\\x([0-9a-fA-F]{1,2})", lambda m: chr(int(m[1], 16)), text)
    text = re.sub(r"\\0?([0-7]{1,3})", lambda m: chr(int(m[1], 8) & 255), text)
    return text.replace("\\n", "\n").replace("\\t", "\t")


def _base64(call: Command) -> Value:
    data = call.stdin
    if call.positional:
        for path in call.positional:
            call.rec.file("read", path)
        data = Value(taints=taints_of(call.positional) | {"file"})
    if call.has("dD", "--decode"):
        return decode(data, "base32" if call.name == "base32" else "base64", text=True)
    return Value(taints=data.taints | {"encoded"})


def _xxd(call: Command) -> Value:
    if call.has("r"):
        return decode(call.stdin, "hex", text=True)
    return read_files(call)


def _openssl(call: Command) -> Value:
    verb = call.texts[0] if call.texts else ""
    source = call.option("-in")
    if verb in ("base64", "enc") and call.has("d") and ("base64" in call.texts or "-base64" in call.texts):
        return decode(call.stdin, "base64", text=True)
    if verb in ("enc", "aes-256-cbc", "smime", "cms") and not call.has("d") and (source or call.stdin.taints):
        call.rec.file("encrypt", source or UNKNOWN)
    if verb == "s_client":
        call.rec.net("connect", call.option("-connect", "-host") or UNKNOWN)
        return unknown("net")
    for path in [source] if source else []:
        call.rec.file("read", path)
    return Value(taints=call.stdin.taints | {"output"})


def _rev(call: Command) -> Value:
    return decode(call.stdin, "reverse", text=True)


def _tr(call: Command) -> Value:
    if len(call.texts) >= 2 and len(call.texts[0]) == len(call.texts[1]) and "-" not in call.texts[0]:
        table = str.maketrans(call.texts[0], call.texts[1])
        return Value(consts=tuple(t.translate(table) for t in call.stdin.texts), taints=call.stdin.taints)
    if call.texts[:2] and re.match(r"^'?[A-Z]?a?-?", call.texts[0]) and "n-za-m" in "".join(call.texts).lower():
        return decode(call.stdin, "rot13", text=True)
    return Value(taints=call.stdin.taints)


def _gunzip(call: Command) -> Value:
    return decode(call.stdin, "zlib", text=True)


def _yes(call: Command) -> Value:
    text = concat(call.args[:1]) if call.args else Value(consts=("y",))
    return Value(consts=text.consts, taints=text.taints | {"endless"})


TEXTS: dict[str, Callable[[Command], Value]] = {
    **dict.fromkeys(_SHELLS, _shell),
    **dict.fromkeys(("python", "pypy", "ipython"), _python),
    **dict.fromkeys(("node", "nodejs", "deno", "bun"), _node),
    **dict.fromkeys(("perl", "ruby", "php", "lua", "awk", "gawk", "mawk", "tclsh"), _other_language),
    "eval": _eval,
    **dict.fromkeys(("echo", "printf"), _echo),
    **dict.fromkeys(("base64", "base32"), _base64),
    "xxd": _xxd,
    "openssl": _openssl,
    "rev": _rev,
    "tr": _tr,
    **dict.fromkeys(("gunzip", "zcat", "unxz"), _gunzip),
    "yes": _yes,
}
"""By the command's name."""
