"""One command line, and what is asked of every one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from mayfly.scan.facts import Value
from mayfly.scan.paths import classify

if TYPE_CHECKING:
    from mayfly.scan.recorder import Recorder


__all__ = ["Command", "secret_taints", "size_of"]


class Command:
    """One command line being judged: its name, its arguments and what is piped into it."""

    def __init__(self, rec: Recorder, name: str, args: list[Value], stdin: Value, before: tuple[str, ...]) -> None:
        self.rec = rec
        self.name = name
        self.args = args
        self.stdin = stdin
        self.before = before
        self.texts = [(arg.texts or ("",))[0] for arg in args]

    @property
    def positional(self) -> list[Value]:
        """The arguments that are no options."""
        found: list[Value] = []
        literal = False
        for arg, text in zip(self.args, self.texts, strict=True):
            if text == "--" and not literal:
                literal = True
            elif literal or not (text.startswith("-") and len(text) > 1):
                found.append(arg)
        return found

    def has(self, short: str, *long: str) -> bool:
        """True when one of the short letters (also bundled) or long options is given."""
        for text in self.texts:
            if text.startswith("--") and text.partition("=")[0] in long:
                return True
            if re.match(r"^-[A-Za-z]+$", text) and any(letter in text for letter in short):
                return True
        return False

    def option(self, *names: str) -> Value | None:
        """The value of an option, as `-o V`, `-oV` or `--out=V`."""
        for number, text in enumerate(self.texts):
            for name in names:
                if text == name and number + 1 < len(self.args):
                    return self.args[number + 1]
                if name.startswith("--") and text.startswith(name + "="):
                    return Value(consts=(text[len(name) + 1 :],))
                if not name.startswith("--") and text.startswith(name) and len(text) > len(name) == 2:
                    return Value(consts=(text[2:],))
        return None


def secret_taints(paths: list[Value]) -> set[str]:
    """What the content of these paths carries: `secret`, or nothing."""
    kinds = {classify(text) for path in paths for text in path.texts}
    return {"secret"} if kinds & {"credentials", "accounts", "history", "process"} else set()


def size_of(text: str) -> int:
    """A size such as `10M` in bytes; 0 when it is none."""
    match = re.match(r"^(\d{1,12})([kKmMgGtT]?)", text)
    return int(match[1]) << {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}[match[2].lower()] if match else 0
