"""Walks a script's tree in the order it would run, keeping what is known of its variables."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from mayfly.scan.bash.builtins import BUILTINS
from mayfly.scan.bash.words import text_of, word
from mayfly.scan.commands import run_command
from mayfly.scan.facts import UNKNOWN, Value
from mayfly.scan.values import concat, join, unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import tree_sitter

    from mayfly.scan.recorder import Recorder

__all__ = ["BashWalk"]

_MAX_STEPS = 20_000
_MAX_CALLS = 6
_MAX_NEST = 200
_DEV_NET = re.compile(r"^/dev/(?:tcp|udp)/([^/]+)/?(\S*)")
_FOREVER = re.compile(
    r"^(?:true|:|/bin/true|\[\s*1\s*\]|\[\[?\s*(?:1|true|1\s*-eq\s*1|1\s*==?\s*1)\s*\]?\]|\(\(\s*1\s*\)\))$"
)
_NEVER = re.compile(r"^(?:false|/bin/false|\[\s*\]|\[\[?\s*(?:0\s*-eq\s*1|1\s*-eq\s*0)\s*\]\]?)$")
_SHELL_NAMES = frozenset({"sh", "bash", "dash", "zsh", "ksh", "exec", "python3", "python"})


def _unquoted(node: tree_sitter.Node) -> bool:
    """True when the word holds an expansion outside quotes, whose blanks part words."""
    kinds = ("simple_expansion", "expansion", "command_substitution")
    return node.type in kinds or (node.type == "concatenation" and any(c.type in kinds for c in node.children))


class BashWalk:
    """The state of one walk: variables, functions, what standard input is."""

    def __init__(self, rec: Recorder) -> None:
        self.rec = rec
        self.names: dict[str, Value] = {}
        self.functions: dict[str, tree_sitter.Node] = {}
        self.called: set[str] = set()
        self.stdin: Value = UNKNOWN
        self.before: tuple[str, ...] = ()
        self._steps = 0
        self._calls: list[str] = []
        self._nest = 0

    def program(self, root: tree_sitter.Node) -> None:
        """Walk the script, then the functions that it never called, with unknown arguments."""
        self.statements(root.children)
        for name, body in list(self.functions.items()):
            if name not in self.called:
                self._call(name, body, [])

    def statements(self, nodes: Iterable[tree_sitter.Node]) -> Value:
        """Walk statements in order; the value is the output of the last that has one."""
        out = [self.statement(node) for node in nodes if node.is_named and node.type != "comment"]
        return join(*out) if out else UNKNOWN

    def statement(self, node: tree_sitter.Node) -> Value:
        """Walk one statement; the value is its output."""
        self._steps += 1
        if self._steps > _MAX_STEPS or self._nest > _MAX_NEST:
            self.rec.overrun()
            return UNKNOWN
        self.rec.line, self.rec.column = node.start_point[0] + 1, node.start_point[1] + 1
        self._nest += 1
        try:
            handler = _STATEMENTS.get(node.type)
            return handler(self, node) if handler is not None else self.statements(node.children)
        finally:
            self._nest -= 1

    def output_of(self, nodes: Iterable[tree_sitter.Node]) -> Value:
        """The output of a substitution; the place is put back afterwards."""
        line, column = self.rec.line, self.rec.column
        out = self.statements(nodes)
        self.rec.line, self.rec.column = line, column
        return out

    def variable(self, name: str) -> Value:  # noqa: PLR0911 - one line for each special name
        """What a variable holds."""
        if (known := self.names.get(name)) is not None:
            return known
        if name == "HOME":
            return Value(consts=("~",))
        if name == "IFS":
            return Value(consts=(" ",))
        if name == "$":
            return unknown("own-pid")
        if name == "!":
            return unknown("own-child")
        if name.isdigit() or name in ("@", "*"):
            return unknown("param")
        return unknown("env") if name.isupper() else UNKNOWN

    def _call(self, name: str, body: tree_sitter.Node, args: list[Value]) -> Value:
        if len(self._calls) >= _MAX_CALLS or name in self._calls:
            return UNKNOWN
        self.called.add(name)
        self._calls.append(name)
        kept = {key: self.names.get(key) for key in [str(n) for n in range(1, 10)] + ["@", "*"]}
        place = (self.rec.line, self.rec.column)
        for number, value in enumerate(args[:9], 1):
            self.names[str(number)] = value
        if args:
            joined = concat([p for a in args for p in (a, Value(consts=(" ",)))][:-1])
            self.names["@"] = self.names["*"] = joined
        try:
            return self.statement(body)
        finally:
            self._calls.pop()
            self.rec.line, self.rec.column = place
            for key, before in kept.items():
                if before is None:
                    self.names.pop(key, None)
                else:
                    self.names[key] = before

    def command(self, node: tree_sitter.Node) -> Value:
        """A simple command: assignments, a name, arguments."""
        argv: list[Value] = []
        for child in node.children:
            if child.type == "variable_assignment":
                self.assign(child)
            elif child.type == "herestring_redirect":
                self.stdin = concat([word(self, c) for c in child.named_children])
            elif child.type == "file_redirect":
                continue
            elif child.is_named:
                argv += self._split(child)
        return self.run(argv)

    def _split(self, node: tree_sitter.Node) -> list[Value]:
        """One word, or several when an unquoted expansion holds blanks."""
        inner = node.named_children[0] if node.type == "command_name" and node.named_children else node
        value = word(self, inner)
        if value.elements and inner.type in ("expansion", "string") and "@" in text_of(inner):
            return list(value.elements)
        if value.consts and _unquoted(inner):
            words = str(value.consts[0]).split()
            if len(words) > 1:
                return [Value(consts=(part,), taints=value.taints) for part in words]
        return [value]

    def run(self, argv: list[Value]) -> Value:
        """Run a command line: a function of the script, a builtin that sets names, or a program."""
        name = (argv[0].texts or ("",))[0] if argv else ""
        if name in self.functions:
            return self._call(name, self.functions[name], argv[1:])
        builtin = BUILTINS.get(name)
        if builtin is not None and (done := builtin(self, argv[1:])) is not None:
            return done
        if name in ("bash", "sh", "zsh", "source", ".") and any("process-substitution" in a.taints for a in argv[1:]):
            self.rec.shell(argv[-1])
        return run_command(self.rec, argv, self.stdin, self.before)

    def assign(self, node: tree_sitter.Node) -> Value:
        """`name=value`, also `+=` and array members."""
        name_node = node.child_by_field_name("name")
        value_node = node.child_by_field_name("value")
        if name_node is None:
            return UNKNOWN
        name = text_of(name_node).partition("[")[0]
        value = word(self, value_node) if value_node is not None else Value(consts=("",))
        if "+=" in text_of(node)[: len(name) + 3] and name in self.names:
            value = concat([self.names[name], value])
        elif len(self._calls) == 0 and self.rec.loops and name in self.names:
            value = join(self.names[name], value)
        if name in ("LD_PRELOAD", "PATH", "PROMPT_COMMAND", "HISTFILE", "HISTSIZE", "BASH_ENV", "LD_LIBRARY_PATH"):
            self.rec.call(f"set-{name}", [value])
        self.names[name] = value
        return UNKNOWN

    def redirected(self, node: tree_sitter.Node) -> Value:
        """A statement with redirections: what it reads from and writes to."""
        kept = self.stdin
        body = node.child_by_field_name("body")
        writes: list[Value] = []
        for child in node.children:
            if child.type == "heredoc_redirect":
                bodies = [c for c in child.named_children if c.type == "heredoc_body"]
                self.stdin = Value(consts=(text_of(bodies[0]),)) if bodies else UNKNOWN
                writes += self._redirects(child, body)
            elif child.type == "herestring_redirect":
                self.stdin = concat([word(self, c) for c in child.named_children])
            elif child.type == "file_redirect":
                writes += self._redirect(child, body)
        out = self.statement(body) if body is not None and body.type != "file_redirect" else self.stdin
        self.stdin = kept
        self.rec.line, self.rec.column = node.start_point[0] + 1, node.start_point[1] + 1
        for path in writes:
            self.rec.file("write", path, content=out)
            if "endless" in out.taints:
                self.rec.loop({"write"}, kind="dd")
        return UNKNOWN if writes else out

    def _redirects(self, node: tree_sitter.Node, body: tree_sitter.Node | None) -> list[Value]:
        found: list[Value] = []
        for child in node.named_children:
            if child.type == "file_redirect":
                found += self._redirect(child, body)
            elif child.type == "pipeline":
                # `cat <<EOF | sh`: the rest of the pipeline hangs below the redirection.
                kept, self.before = self.before, (*self.before, "cat")
                self.statements(child.named_children)
                self.before = kept
        return found

    def _redirect(self, node: tree_sitter.Node, body: tree_sitter.Node | None) -> list[Value]:
        """One `> path`: the paths written to. Reading sets standard input; `/dev/tcp` is the network."""
        operator = next((c.type for c in node.children if not c.is_named), "")
        targets = [word(self, c) for c in node.named_children if c.type != "file_descriptor"]
        found: list[Value] = []
        for target in targets:
            network = [match for text in target.texts if (match := _DEV_NET.match(text))]
            if network:
                self._network(network[0], body)
            elif operator.startswith("<"):
                if target.texts:
                    self.rec.file("read", target)
                self.stdin = run_command(self.rec, [Value(consts=("cat",)), target]) if target.texts else target
            elif not any(text.isdigit() or text in ("/dev/null", "-") for text in target.texts):
                found.append(target)
        return found

    def _network(self, match: re.Match[str], body: tree_sitter.Node | None) -> None:
        host, port = Value(consts=(match[1],)), Value(consts=(match[2],))
        name = text_of(body).split()[0].rpartition("/")[2] if body is not None and text_of(body).split() else ""
        self.rec.net("connect", host, port)
        if name in _SHELL_NAMES:
            self.rec.call("network-shell", [host])
        self.stdin = unknown("net")

    def pipeline(self, node: tree_sitter.Node) -> Value:
        """`a | b | c`: each reads what the one before wrote."""
        kept_in, kept_before = self.stdin, self.before
        out = UNKNOWN
        for number, child in enumerate(node.named_children):
            if number:
                self.stdin = out
            out = self.statement(child)
            self.before = (*self.before, (text_of(child).split() or [""])[0].rpartition("/")[2])
        self.stdin, self.before = kept_in, kept_before
        return out

    def loop(self, node: tree_sitter.Node) -> Value:
        """`while` and `until`; one that nothing ends is a fact of its own."""
        condition = node.child_by_field_name("condition")
        body = node.child_by_field_name("body")
        text = text_of(condition).strip() if condition is not None else ""
        endless = bool((_NEVER if node.children[0].type == "until" else _FOREVER).match(text))
        kept = self.stdin
        if condition is not None:
            self.statement(condition)
        self._body(node, body, endless=endless)
        self.stdin = kept
        return UNKNOWN

    def _body(self, node: tree_sitter.Node, body: tree_sitter.Node | None, *, endless: bool) -> None:
        if body is None:
            return
        text = text_of(body)
        if endless and not re.search(r"\b(?:break|exit|return|exec)\b", text):
            self.rec.line, self.rec.column = node.start_point[0] + 1, node.start_point[1] + 1
            does = {"spawn"} if re.search(r"[^&>]&(?!&)\s*(?:$|;|\n|\w|done)", text) else set()
            does |= {"wait"} if re.search(r"\b(?:sleep|read|wait)\b", text) else set()
            does |= {"write"} if ">" in text.replace("/dev/null", "").replace("2>", "") else set()
            does |= {"grow"} if re.search(r"\w\+=|=\"?\$\w+\$", text) else set()
            self.rec.loop(does)
        self.rec.loops += 1
        self.statement(body)
        self.rec.loops -= 1

    def each(self, node: tree_sitter.Node) -> Value:
        """`for x in words`: the variable may be any of them."""
        name = node.child_by_field_name("variable")
        values: list[Value] = []
        for child in node.named_children:
            if child.type not in ("variable_name", "do_group", "compound_statement"):
                value = word(self, child)
                parts = [Value(consts=(p,), taints=value.taints) for c in value.consts for p in str(c).split()]
                values += value.elements or parts or [value]
        if name is not None and values:
            self.names[text_of(name)] = join(*values[:64])
        self._body(node, node.child_by_field_name("body"), endless=False)
        return UNKNOWN

    def c_for(self, node: tree_sitter.Node) -> Value:
        """`for ((;;))`."""
        endless = bool(re.match(r"^for\s*\(\([^;]*;\s*;", text_of(node)))
        self._body(node, node.child_by_field_name("body"), endless=endless)
        return UNKNOWN

    def function(self, node: tree_sitter.Node) -> Value:
        """Remember a function; one that starts itself twice or in the background is a fork bomb."""
        name_node, body = node.child_by_field_name("name"), node.child_by_field_name("body")
        if name_node is not None and body is not None:
            name = text_of(name_node)
            self.functions[name] = body
            again = rf"(?<![\w.-]){re.escape(name)}(?![\w.-])"
            if re.search(rf"{again}\s*(?:\|\s*{again})?\s*&(?!&)", text_of(body)):
                self.rec.loop({"spawn"}, kind="fork-bomb")
            elif (text_of(body.named_children[0]).split() or [""])[0] == name if body.named_children else False:
                self.rec.loop({"call"}, kind="recursion")
        return UNKNOWN

    def declaration(self, node: tree_sitter.Node) -> Value:
        """`export`, `local`, `declare`, `readonly`."""
        assigned = False
        for child in node.named_children:
            if child.type == "variable_assignment":
                self.assign(child)
                assigned = True
        if not assigned:
            run_command(self.rec, [Value(consts=(text_of(c),)) for c in node.children], self.stdin, self.before)
        return UNKNOWN

    def nothing(self, node: tree_sitter.Node) -> Value:
        """A test: its words may hold substitutions, and the paths that it looks for are worth knowing."""
        for child in node.named_children:
            self.nothing(child)
            if child.type == "command_substitution":
                word(self, child)
        if node.type == "unary_expression" and node.named_children:
            path = word(self, node.named_children[-1])
            if any(text.startswith("/") for text in path.texts):
                self.rec.call("file-test", [path])
        return UNKNOWN


_STATEMENTS: dict[str, Callable[[BashWalk, tree_sitter.Node], Value]] = {
    "command": BashWalk.command,
    "variable_assignment": BashWalk.assign,
    "redirected_statement": BashWalk.redirected,
    "pipeline": BashWalk.pipeline,
    "while_statement": BashWalk.loop,
    "for_statement": BashWalk.each,
    "c_style_for_statement": BashWalk.c_for,
    "function_definition": BashWalk.function,
    "declaration_command": BashWalk.declaration,
    "unset_command": BashWalk.declaration,
    "test_command": BashWalk.nothing,
    "comment": lambda _walk, _node: UNKNOWN,
}
