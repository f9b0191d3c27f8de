"""What must hold for any input: no exception, bounded answers, and no way to talk a denial away by rewriting names."""

# ruff: noqa: E501 - statements in a list read better on long lines

from __future__ import annotations

import ast
import keyword
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mayfly.scan import builtin_policy, scan
from mayfly.scan.notebook import notebook_source
from mayfly.scan.rules import all_rules

if TYPE_CHECKING:
    from mayfly.model import Verdict

DEFAULT = builtin_policy("default")
DENIED = [
    source
    for rule in all_rules()
    for lang, source in rule.examples.items()
    if lang == "python" and source.isascii() and scan(source.encode(), lang="python", policy=DEFAULT).verdict == "deny"
]
SCRIPTS = [
    source
    for rule in all_rules()
    for lang, source in rule.examples.items()
    if lang == "bash" and scan(source.encode(), lang="bash", policy=DEFAULT).verdict == "deny"
]
_PIECES = [
    "import os", "os.system(x)", "x = 'a' * 3", "def f(a, *b, **c):", "    return f(a)", "for i in range(3):", "    y = [i for i in x]",
    "while True:", "    pass", "class A(B):", "    z = {1: 2, **q}", "lambda *a: a", "x[::-1]", "x[1:2] = y", "(yield)", "await x",
    "f'{x!r:>{y}}'", "eval('1')", "exec(b'\\xff')", "getattr(x, 'y')()", "del x", "with open(x) as (a, b):", "try:", "except* E as e:",
    "match x:", "    case {'a': [b, *c], **d}: pass", "x: int = 5", "x @= y", "global x", "print(*x, **y)", "''.join(map(chr, x))",
    "x = y = z", "a, *b = c", "assert x, y", "raise X from Y", "import a.b.c as d", "from . import x", "not x", "x if y else z",
    "1 << 10**9", "'%s' % x", "'{0}{1}{a}'.format(*x)", "int('9' * 999)", "bytes([1, 2, 300])", "base64.b64decode('====')",
]  # fmt: skip


def _check(verdict: Verdict) -> None:
    assert verdict.verdict in {"allow", "review", "deny", "unparseable"}
    assert not verdict.parse.startswith("limit: the scan could not finish"), verdict.parse
    assert len(verdict.findings) <= 100
    assert all(len(finding.message) <= 400 for finding in verdict.findings)


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(st.sampled_from(_PIECES), max_size=14), st.booleans())
def test_any_python_statements_get_a_verdict(pieces: list[str], indented: bool) -> None:
    lines: list[str] = []
    for piece in pieces:
        opened = lines and lines[-1].rstrip().endswith(":")
        lines.append("    " + piece.strip() if opened and indented else piece)
    _check(scan("\n".join(lines).encode(), lang="python", policy=DEFAULT))


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="$(){}[]<>|&;\"'` \n\\=*?!#~/abcdefr-0123456789", max_size=80))
def test_any_shell_text_gets_a_verdict(text: str) -> None:
    _check(scan(text.encode(), lang="bash", policy=DEFAULT))


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="(){}[]<>|&;\"'` \n\\=*?!/abcdefr-0123456789.,:+", max_size=80))
def test_any_javascript_text_gets_a_verdict(text: str) -> None:
    _check(scan(text.encode(), lang="javascript", policy=DEFAULT))


@given(st.binary(max_size=300))
def test_any_bytes_are_a_notebook_or_none(data: bytes) -> None:
    source = notebook_source(data)
    assert source is None or isinstance(source, bytes)


@pytest.mark.parametrize("source", DENIED)
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_renaming_own_names_keeps_a_denial(source: str, data: st.DataObject) -> None:
    tree = ast.parse(source)
    own = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)} | {
        node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
    }
    own -= {name for name in own if name.startswith("__")}
    new = {
        name: data.draw(st.from_regex(r"[a-z_]{3}v[0-9]{1,3}", fullmatch=True)) + str(n)
        for n, name in enumerate(sorted(own))
    }

    class Renamer(ast.NodeTransformer):
        def visit_Name(self, node: ast.Name) -> ast.AST:
            return ast.Name(new.get(node.id, node.id), node.ctx)

        def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
            node.name = new.get(node.name, node.name)
            self.generic_visit(node)
            return node

        def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
            node.name = new.get(node.name, node.name)
            self.generic_visit(node)
            return node

    assert not any(keyword.iskeyword(name) for name in new.values())
    renamed = ast.unparse(ast.fix_missing_locations(Renamer().visit(tree)))
    assert scan(renamed.encode(), lang="python", policy=DEFAULT).verdict == "deny", renamed


@pytest.mark.parametrize("source", DENIED)
@settings(max_examples=5, deadline=None)
@given(data=st.data())
def test_blank_lines_and_comments_keep_a_denial(source: str, data: st.DataObject) -> None:
    noise = st.sampled_from(["", "# nothing to see", "    # indented", "#" * 200, "\t# tab", "# os.remove = print"])
    lines: list[str] = []
    for line in source.split("\n"):
        lines += data.draw(st.lists(noise, max_size=2)) if line and not line.startswith((" ", ")")) else []
        lines.append(line)
    noisy = "\n".join(lines) + data.draw(st.sampled_from(["", "\n", "\n\n# end", "  # end"]))
    assert scan(noisy.encode(), lang="python", policy=DEFAULT).verdict == "deny", noisy


@pytest.mark.parametrize("source", SCRIPTS)
@pytest.mark.parametrize(
    "frame", ["{}\n", "# c\n\n{}", "{}  # c", "set -e\n{}", "if true; then\n{}\nfi", "main() {{\n{}\n}}\nmain"]
)
def test_framing_a_script_keeps_a_denial(source: str, frame: str) -> None:
    if "EOF" in source:
        pytest.skip("a here-document may not be moved")
    framed = frame.format(source)
    assert scan(framed.encode(), lang="bash", policy=DEFAULT).verdict == "deny", framed


@pytest.mark.parametrize(
    "frame",
    [
        "if True:\n{}",
        "def main():\n{}\nmain()",
        "class A:\n    def run(self):\n    {}\nA().run()",
        "try:\n{}\nexcept Exception:\n    pass",
        "for _ in range(1):\n{}",
        "with open('a') as f:\n{}",
    ],
)
@pytest.mark.parametrize("source", [s for s in DENIED if "\n" in s and "while True" not in s and "class" not in s])
def test_framing_a_program_keeps_a_denial(source: str, frame: str) -> None:
    inner = "\n".join("    " + line for line in source.split("\n"))
    if "class A" in frame:
        inner = inner.replace("\n", "\n    ")
    framed = frame.format(inner)
    assert scan(framed.encode(), lang="python", policy=DEFAULT).verdict == "deny", framed


@pytest.mark.parametrize(
    ("name", "source", "lang"),
    [
        ("terms", b"x = " + b" + ".join([b"'a'"] * 5000), "python"),
        ("attributes", b"x" + b".a" * 60, "python"),
        ("nested-lists", b"x = " + b"[" * 80 + b"]" * 80, "python"),
        ("calls", b"def f(x):\n    return f(f(f(x)))\n" + b"f(1)\n" * 3000, "python"),
        ("functions", b"".join(b"def f%d(x):\n    return f%d(x)\n" % (n, n + 1) for n in range(800)), "python"),
        ("branches", b"if a:\n    b = 1\nelse:\n    b = 2\n" * 2000, "python"),
        ("filled", b"a = '" + b"a" * 100_000 + b"'\nb = ('" + b"%s" * 4000 + b"' % (" + b"a," * 4000 + b"))", "python"),
        ("one-line", b";".join(b"a%d=a%d*9999" % (n, n - 1) for n in range(15_000)), "python"),
        ("own-calls", b"".join(b"def f%d():f%d()\n" % (n, n) for n in range(12_000)), "python"),
        ("many-branches", b"import os\n" + b"".join(b"if a%d: b%d=1\n" % (n, n) for n in range(14_000)), "python"),
        ("product", b"a = ['x'] * 9\n" + b"a = [b + c for b in a for c in a]\n" * 50, "python"),
        ("doubling", b"a = 'ab'\n" + b"a = a + a\n" * 200, "python"),
        ("list-of-itself", b"import os\na = [os.getcwd()]\n" + b"a = [a, a]\n" * 60 + b"print(a)", "python"),
        (
            "list-of-numbers",
            b"def f(x):\n    return 1\nf(1)\na = [max(3, 4)]\n" + b"a = [a, a]\n" * 60 + b"f(a)",
            "python",
        ),
        ("list-in-branches", b"import os\nc = os.getcwd()\na = [1, c]\n" + b"if c:\n    a = list(a)\n" * 60, "python"),
        ("list-unpacked", b"import os\na = [os.getcwd()]\n" + b"a = [*a, *a]\n" * 60 + b"print(*a, *a)", "python"),
        ("list-or-itself", b"import os\na = [os.getcwd()]\n" + b"a = a or [1] or a\n" * 60, "python"),
        ("dict-of-itself", b"import os\na = {'k': os.getcwd()}\n" + b"if a:\n    a = dict(a, z=a)\n" * 60, "python"),
        ("one-word", b"a" * 200_000, "bash"),
        ("word-for-a-shell", b"import os\nos.system('" + b"a" * 200_000 + b"')", "python"),
        ("pipes", b"a" + b" | b" * 3000, "bash"),
        ("expansions", b"a=x\n" + b"a=$a$a\n" * 200, "bash"),
        ("brackets", b"((((" * 3000, "bash"),
        ("recursion", b"f() { g; }\ng() { f; }\n" * 300 + b"f", "bash"),
        ("functions", b"function f(){ f(); }\n" * 2000, "javascript"),
        ("arrays", b"[" * 3000, "javascript"),
        ("texts", b"let a = 'ab';\n" + b"a = a + a;\n" * 200, "javascript"),
    ],
)
def test_programs_made_to_grow_stay_small(name: str, source: bytes, lang: str) -> None:
    del name
    verdict = scan(source, lang=lang, policy=DEFAULT)  # type: ignore[arg-type]
    assert verdict.verdict in {"allow", "review", "deny", "unparseable"}


@pytest.mark.parametrize(
    "receiver", ["None", "1", "1.5", "b'x'", "'x'", "True", "[]", "{}", "(1, 'a', None)", "x", "..."]
)
def test_any_method_of_any_value_is_survived(receiver: str) -> None:
    from mayfly.scan.python.table import METHODS, TABLE

    arguments = (
        "",
        "None",
        "1, 'a'",
        "b'x', None, 3",
        "[1, None, 'x'], {'a': 1}",
        "*x, **y",
        "key=None",
        f"{receiver}",
    )
    lines = [f"({receiver}).{name}({args})" for name in METHODS for args in arguments]
    _check(scan("\n".join(lines).encode(), lang="python", policy=DEFAULT))
    plain = [name for name in TABLE if name.replace(".", "").replace("_", "").isalnum()]
    for args in arguments:
        lines = [
            f"import {name.rpartition('.')[0]}\n{name}({args})" if "." in name else f"{name}({args})" for name in plain
        ]
        _check(scan("\n".join(lines).encode(), lang="python", policy=DEFAULT))


@pytest.mark.parametrize("other", ["None", "'ab'", "b'ab'", "[1, 2]", "1.5", "{}"])
@pytest.mark.parametrize("made", ["list", "tuple", "set", "sorted", "reversed", "iter", "sum"])
def test_a_range_that_may_be_something_else_is_survived(other: str, made: str) -> None:
    lines = [
        "import sys",
        f"x = range(1000) if sys.argv else {other}",
        f"print({made}(x))",
        "for i in x:",
        "    print(i)",
    ]
    verdict = scan("\n".join(lines).encode(), lang="python", policy=DEFAULT)
    _check(verdict)
    assert verdict.verdict == "allow"
