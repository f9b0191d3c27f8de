"""Commands that use files."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from mayfly.scan.commands.command import secret_taints, size_of
from mayfly.scan.facts import UNKNOWN, Value
from mayfly.scan.values import concat, unknown

if TYPE_CHECKING:
    from collections.abc import Callable

    from mayfly.scan.commands.command import Command


__all__ = ["FILES", "READERS", "read_files"]

_ENDLESS = frozenset({"/dev/zero", "/dev/urandom", "/dev/random", "/dev/full"})
READERS = frozenset({
    "cat", "head", "tail", "less", "more", "sort", "cut", "strings", "xxd", "od", "hexdump", "nl", "tac", "wc",
    "diff", "cmp", "md5sum", "sha1sum", "sha256sum", "sha512sum", "cksum", "base64", "base32", "uniq", "rev", "paste",
    "column", "fold", "bat", "view", "most", "split", "comm", "join", "vi", "vim", "nano", "emacs", "pr", "expand",
    "source", ".", "readarray", "mapfile", "file", "gzip", "bzip2", "xz", "zcat", "iconv", "openssl", "stat",
})  # fmt: skip


_LISTERS = frozenset({"ls", "dir", "vdir", "tree", "du", "find", "fd", "exa", "lsattr", "getfacl", "locate"})


def read_files(call: Command) -> Value:
    """A command that reads the files it names, or its input."""
    positional = call.positional
    for path in positional:
        call.rec.file("read", path)
    found = {"output", "file"} if positional else {"output"}
    if not positional:
        return Value(consts=call.stdin.consts, prefix=call.stdin.prefix, taints=call.stdin.taints | found)
    if any(text in _ENDLESS for path in positional for text in path.texts):
        found |= _endless(call)
    return Value(taints=call.stdin.taints | found | secret_taints(positional))


def _endless(call: Command) -> set[str]:
    """A device that never ends: cut by `head`, kept in memory by `tail` and `sort`, handed on by others."""
    if call.name == "head":
        if (size := call.option("-c", "--bytes")) is not None and size.texts and size_of(size.texts[0]) >= 1 << 30:
            call.rec.call("fill-disk", [size])
        return set()
    if call.name in ("tail", "sort", "tac"):
        call.rec.loop({"grow"})
    return {"endless"}


def _grep(call: Command) -> Value:
    """The first word of grep, sed and awk is the pattern or program."""
    given = call.option("-e", "-f") is not None
    paths = call.positional if given else call.positional[1:]
    in_place = call.name in ("sed", "perl") and (call.has("i", "--in-place") or any(t[:2] == "-i" for t in call.texts))
    for path in paths:
        call.rec.file("write" if in_place else "read", path)
    taints = call.stdin.taints | secret_taints(paths) | {"output"}
    return Value(taints=taints)


def _list(call: Command) -> Value:
    if call.name in ("find", "fd"):
        return _find(call)
    for path in call.positional:
        call.rec.file("list", path)
    return unknown("output", "walk")


_FILTERS = frozenset({"-name", "-iname", "-mtime", "-mmin", "-size", "-empty", "-regex", "-newer", "-path"})


def _find(call: Command) -> Value:
    from mayfly.scan.commands.run import run_command

    roots: list[Value] = []
    for value, text in zip(call.args, call.texts, strict=True):
        if text.startswith(("-", "(", "!", "\\(")):
            break
        roots.append(value)
    name = call.option("-name", "-iname", "-path")
    for path in roots:
        call.rec.file("list", path)
        if name is not None:
            call.rec.file("list", concat([path, Value(consts=("/",)), name]))
        if "-delete" in call.texts:
            some = _FILTERS & set(call.texts) and (path.texts or ("",))[0] in (".", "./")
            call.rec.file("delete" if some else "delete-tree", path)
    for flag in ("-exec", "-execdir", "-ok"):
        if flag in call.texts:
            number = call.texts.index(flag) + 1
            tail = [
                v for v, t in zip(call.args[number:], call.texts[number:], strict=True) if t not in (";", "+", "\\;")
            ]
            found = roots[0] if roots else UNKNOWN
            argv = [found if (v.texts or ("",))[0] == "{}" else v for v in tail]
            call.rec.loops += 1
            run_command(call.rec, argv, UNKNOWN, ())
            call.rec.loops -= 1
    if "-perm" in call.texts:
        call.rec.command("find-perm", [call.option("-perm") or UNKNOWN])
    return unknown("output", "walk")


def _remove(call: Command) -> Value:
    tree = call.has("rR", "--recursive")
    for path in call.positional:
        call.rec.file("delete-tree" if tree else "delete", path, content=Value(consts=("no-preserve-root",))
                      if "--no-preserve-root" in call.texts else UNKNOWN)  # fmt: skip
    return UNKNOWN


def _copy(call: Command) -> Value:
    paths = call.positional
    target = call.option("-t", "--target-directory")
    sources, goal = (paths, target) if target else (paths[:-1], paths[-1] if paths else UNKNOWN)
    for path in sources:
        if call.name == "ln":
            call.rec.file("link", path)
        elif call.name == "mv":
            call.rec.file("rename", path)
        else:
            call.rec.file("read", path)
    if goal is not None and len(paths) > 1:
        call.rec.file("write", goal, content=Value(taints=frozenset(secret_taints(sources) | {"file"})))
    return UNKNOWN


def _write_args(call: Command) -> Value:
    for path in call.positional:
        call.rec.file("write", path, content=call.stdin)
    return call.stdin


def _chmod(call: Command) -> Value:
    paths = call.positional
    if call.name == "chmod":
        words = [t for t in call.texts if re.match(r"^(?:[0-7]{3,4}|[ugoa]*[-+=][rwxXst]+.*)$", t)]
        mode = int(words[0], 8) if words and words[0].isdigit() else None
        if words and mode is None:
            mode = (
                0o4755 if re.search(r"\+[rwx]*s", words[0]) else 0o777 if re.match(r"^[oa]?\+[rwx]*w", words[0]) else 0
            )
        for path in paths:
            if (path.texts or ("",))[0] not in words:
                call.rec.file("chmod", path, mode=mode)
    else:
        for path in paths[1:]:
            call.rec.file("chown", path)
    return UNKNOWN


def _dd(call: Command) -> Value:
    pairs = dict(text.split("=", 1) for text in call.texts if "=" in text)
    source, goal = pairs.get("if"), pairs.get("of")
    if source:
        call.rec.file("read", Value(consts=(source,)))
    if goal:
        endless = source in ("/dev/zero", "/dev/urandom", "/dev/random") and "count" not in pairs
        call.rec.file("write", Value(consts=(goal,)))
        if endless:
            call.rec.loop({"write"}, kind="dd")
    if source in ("/dev/zero", "/dev/urandom", None) and (size := _dd_size(pairs)) >= 1 << 30:
        call.rec.call("fill-disk", [Value(consts=(size,))])
    return Value(taints=frozenset({"output", *secret_taints([Value(consts=(source,))])})) if source else UNKNOWN


def _dd_size(pairs: dict[str, str]) -> int:
    return size_of(pairs.get("bs", "512")) * size_of(pairs.get("count", "1"))


def _allocate(call: Command) -> Value:
    size = call.option("-s", "-l", "--size", "--length")
    if size is not None and size.texts and size_of(size.texts[0]) >= 1 << 30:
        call.rec.call("fill-disk", [Value(consts=(size_of(size.texts[0]),))])
    for path in call.positional:
        call.rec.file("write", path)
    return UNKNOWN


def _archive(call: Command) -> Value:
    """tar, zip, 7z: what is packed is read."""
    paths = [p for p in call.positional if not re.match(r"^[cxtvzjfJpruC]+$", (p.texts or ("x",))[0])]
    packing = call.name == "zip" or any(re.match(r"^-?[a-zA-Z]*[cru]", t) for t in call.texts[:1])
    secret: set[str] = set()
    if packing:
        for path in paths[1:] if len(paths) > 1 else paths:
            call.rec.file("read", path)
        secret = secret_taints(paths)
    if call.name in ("zip", "7z") and call.has("eP", "--encrypt", "--password"):
        call.rec.file("encrypt", paths[-1] if paths else UNKNOWN)
    return Value(taints=frozenset({"output", *secret}))


def _gpg(call: Command) -> Value:
    if call.has("ce", "--symmetric", "--encrypt"):
        call.rec.file("encrypt", call.positional[-1] if call.positional else UNKNOWN)
    return unknown("output")


FILES: dict[str, Callable[[Command], Value]] = {
    "gpg": _gpg,
    **dict.fromkeys(("grep", "egrep", "fgrep", "rg", "sed"), _grep),
    **dict.fromkeys(_LISTERS, _list),
    **dict.fromkeys(("rm", "unlink", "shred", "srm", "wipe", "rmdir"), _remove),
    **dict.fromkeys(("cp", "mv", "ln", "install"), _copy),
    **dict.fromkeys(("tee", "touch", "mkdir", "mkfifo", "chattr", "setfacl"), _write_args),
    **dict.fromkeys(("truncate", "fallocate"), _allocate),
    **dict.fromkeys(("chmod", "chown", "chgrp"), _chmod),
    "dd": _dd,
    **dict.fromkeys(("tar", "zip", "z"), _archive),
}
"""By the command's name."""
