"""What the walk is spared is what could not have mattered: findings are those of a walk over everything."""

from __future__ import annotations

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mayfly.scan import builtin_policy, scan
from mayfly.scan.python import frontend, relevance
from mayfly.scan.python.relevance import relevant
from mayfly.scan.rules import all_rules

DEFAULT = builtin_policy("default")
EXAMPLES = [rule.examples["python"] for rule in all_rules() if "python" in rule.examples]
COMPUTING = [
    "import re\nimport math as m\nfrom collections import Counter",
    "def words_of(text):\n    found = re.findall('[a-z]+', text)\n    return Counter(found)",
    "class Shape:\n    def __init__(self, a, b):\n        self.a = a\n    def area(self):\n        return self.a ** 2",
    "assert words_of('a b a')['a'] == 2",
    "total = 0\nfor number in [3, 4, 5]:\n    total += number\nprint(total)",
    "while total > 1:\n    total -= 1",
    "if __name__ == '__main__':\n    print(Shape(2, 3).area(), m.sqrt(4))",
]


def _found(source: str) -> list[tuple[str, str]]:
    verdict = scan(source.encode(), lang="python", policy=DEFAULT)
    return sorted((finding.rule, finding.message) for finding in verdict.findings)


def _kept(source: str) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(relevance, "_WORTH_PICKING", 0)  # pick the statements of short programs too
        return "\n".join(ast.unparse(s) for s in relevant(ast.parse(source), source)[0])


@given(example=st.sampled_from(EXAMPLES), before=st.lists(st.sampled_from(COMPUTING), max_size=4), data=st.data())
def test_examples_among_computing_code_are_found_as_by_a_full_walk(example, before, data) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    after = data.draw(st.lists(st.sampled_from(COMPUTING), max_size=3))
    source = "\n".join([*before, example, *after])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(relevance, "_WORTH_PICKING", 0)
        quick = _found(source)
        patch.setattr(frontend, "relevant", lambda tree, _text: (tree.body, []))
        assert quick == _found(source)


def test_computing_alone_is_not_walked() -> None:
    source = "\n".join(COMPUTING)
    assert _kept(source) == "import re\nimport math as m\nfrom collections import Counter"


def test_imports_in_what_is_not_walked_are_still_seen() -> None:
    policy = builtin_policy("strict")
    verdict = scan(b"def f():\n    import decimal\n    import heapq\n    return heapq\n", lang="python", policy=policy)
    assert verdict.verdict == "allow"
    verdict = scan(b"def f():\n    import calendar, abc\n    from array import array\n", lang="python", policy=policy)
    assert verdict.verdict == "allow"
    denied = scan(b"def f():\n    from unicodedata import *\n    import random as r, copy\n", lang="python",
                  policy=builtin_policy("default"))  # fmt: skip
    assert denied.verdict == "allow"


@pytest.mark.parametrize(
    ("source", "kept"),
    [
        ("from os import system as s\ndef go(x):\n    s(x)\ngo('id')", ["go", "system"]),
        ("def key():\n    return 7\ndef plain():\n    return 8\nexec(chr(105 ^ key()))", ["key"]),
        ("def f():\n    global g\n    g = run\nfrom subprocess import run\ng('id')", ["def f"]),
        ("def loop():\n    while True:\n        pass\nloop()", ["while True"]),
        ("def f(x):\n    return f(x)\nf(1)", ["def f"]),
        ("SIZE = 10 ** 10\ndef f():\n    return [0] * SIZE", ["SIZE = ", "def f"]),
        ("def f():\n    return ().__class__.__bases__[0].__subclasses__()", ["def f"]),
        ("import itertools\nfor x in itertools.count():\n    print(x)", ["for x in"]),
        ("(print := __import__)\ndef f():\n    print('os')", ["def f", ":="]),
        ("import random\nrandom._os.system('id')", ["_os"]),
        ("from os import *\ndef f():\n    system('id')", ["def f"]),
        ("import re\nre.compile('x')\ncompile('x', 'y', 'exec')", ["compile('x', 'y'"]),
    ],
)
def test_what_can_matter_is_kept(source: str, kept: list[str]) -> None:
    found = _kept(source)
    assert all(text in found for text in kept), found


@pytest.mark.parametrize("count", [1, 8, 9, 40])
def test_a_large_size_is_seen_among_few_and_among_many_long_numbers(count: int) -> None:
    numbers = "".join(f"n{number} = {10**9 + number}\n" for number in range(count))
    source = "\n".join(COMPUTING) + f"\n{numbers}rows = [0] * n{count - 1}\n"
    assert any(rule == "MF-RES-003" for rule, _ in _found(source))
