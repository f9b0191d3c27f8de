"""Preloading: programs start as under plain Python, and find what was imported beforehand when they ask for it."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from mayfly.agent.process import preload_list
from mayfly.testing.agent import ProgramResult, agent_process

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

_PYTHON = "/usr/bin/python3" if os.access("/usr/bin/python3", os.X_OK) else sys.executable
_LIST = (
    *(
        "json",
        "csv",
        "decimal",
        "fractions",
        "logging",
        "asyncio",
        "concurrent.futures.thread",
        "random",
        "importlib.util",
    ),
    *("xml.etree.ElementTree", "multiprocessing.process", "ssl", "email.message", "unittest", "tempfile", "statistics"),
)


@pytest.fixture
def run() -> Callable[..., ProgramResult]:
    """Runs one program in a runner that has preloaded; each time in a new one."""

    def run(program: str, *, preload: Sequence[str] = _LIST, **options: object) -> ProgramResult:
        with agent_process(preload=preload) as agent:
            agent.wait_until_preloaded()
            # a program that names nothing of the list gets the other runner
            return agent.run(f"{textwrap.dedent(program)}\n# {preload[0]}", **options)

    return run


def plain(program: str, tmp_path: Path) -> subprocess.CompletedProcess[bytes]:
    """The same with a plain interpreter."""
    (tmp_path / "main.py").write_text(textwrap.dedent(program))
    env = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": str(tmp_path)}
    return subprocess.run([_PYTHON, "main.py"], cwd=tmp_path, env=env, capture_output=True, timeout=60, check=False)


# Each says what it sees of the interpreter; plain Python is the measure.
_VIEWS = {
    "modules": "import sys; print(sorted(sys.modules))",
    "path": "import sys; print(sys.path[1:], len(sys.path_hooks), sys.flags)",
    "built-in names": "import builtins; print(sorted(vars(builtins)))",
    "warning filters": "import _warnings; print(_warnings.filters)",
    "signal handlers": "import _signal; print([_signal.getsignal(n) for n in range(1, 65)])",
    "threads": "import os; print(len(os.listdir('/proc/self/task')))",
    "open files": "import os; print(sorted(os.listdir('/proc/self/fd'))[:-1])",
    "a package without its parts": "import xml, importlib; print(hasattr(xml, 'etree'), hasattr(importlib, 'util'))",
    "what json brings": "import json, sys; print(sorted(sys.modules))",
    "what asyncio brings": "import asyncio, sys; print(sorted(sys.modules))",
    "what a part brings": "import xml.etree.ElementTree as e, sys; print(sorted(sys.modules), e.__spec__.origin)",
    "what unittest brings": "import unittest, sys; print(sorted(sys.modules))",
    "its own specification": "import decimal as d; print(d.__spec__.origin, d.__spec__.parent, d.__file__)",
    "warning filters of a module": "import unittest, warnings; print(warnings.filters)",
    "exits of a module": "import logging, sys\nclass H(logging.Handler):\n def flush(s): print('flushed')\nh = H()\n",
    "nothing imported by hand": "import sys\ntry:\n  json\nexcept NameError as e: print(e)\n",
    "a module that is not there": "try:\n  import json.nowhere\nexcept ImportError as e: print(e)\n",
    "imported twice": "import json, decimal as a, importlib; b = importlib.import_module('decimal'); print(a is b)",
    "loaded again": "import json, importlib; print(importlib.reload(json) is json, json.dumps([1]))",
    "taken out and imported again": "import csv, sys; old = csv; del sys.modules['csv']; import csv; print(old is csv)",
    "a path without the library": "import sys; sys.path[:] = []\ntry: import csv\nexcept ImportError as e: print(e)\n",
    "a finder that forbids": """
        import sys
        class No:
            def find_spec(self, name, path=None, target=None):
                if name == 'csv':
                    raise ImportError('forbidden')
        sys.meta_path.insert(0, No())
        try:
            import csv
        except ImportError as error:
            print(error)
    """,
    "types that agree": "import numbers, fractions as f; print(isinstance(f.Fraction(1), numbers.Number))",
    "a class pickled by name": "import pickle, decimal; print(pickle.loads(pickle.dumps(decimal.Decimal('1.5'))))",
    "a program that fails": "import json\njson.loads('{')\n",
    "an exit code": "import asyncio, sys; sys.exit(7)",
}


@pytest.mark.parametrize("view", _VIEWS)
def test_a_program_sees_what_plain_python_shows(view: str, run: Callable[..., ProgramResult], tmp_path: Path) -> None:
    program = textwrap.dedent(_VIEWS[view])
    expected, result = plain(program, tmp_path), run(program)
    assert result.stdout.decode() == expected.stdout.decode()
    assert result.exit_code == expected.returncode
    assert result.stderr.splitlines()[-1:] == expected.stderr.splitlines()[-1:]


def test_what_was_preloaded_is_not_loaded_again(run: Callable[..., ProgramResult]) -> None:
    program = """
        import sys
        seen = []
        sys.addaudithook(lambda event, args: seen.append(args[0]) if event == 'open' else None)
        import json, asyncio, decimal
        print([path for path in seen if str(path).endswith(('.py', '.pyc'))])
    """
    assert run(program).stdout == b"[]\n"


_SHADOW = """
    import sys
    open('statistics.py', 'w').write('here = "mine"')
    {first}
    import statistics
    print(statistics.here)
    import random
    print(0 <= random.random() < 1)
"""


@pytest.mark.parametrize("first", ["", "import random", "import logging, asyncio, ssl"])
def test_a_program_gets_its_own_file_of_the_same_name(run: Callable[..., ProgramResult], first: str) -> None:
    assert run(_SHADOW.format(first=first)).stdout == b"mine\nTrue\n"


def test_a_program_named_like_a_module_is_found_by_its_own_import(run: Callable[..., ProgramResult]) -> None:
    result = run("import csv\nprint(__name__, csv.__file__.endswith('/home/csv.py'))\n", filename="csv.py")
    assert result.stdout.splitlines() == [b"csv True", b"__main__ True"]


def test_random_numbers_of_a_preloaded_module_are_seeded_when_it_is_imported(run: Callable[..., ProgramResult]) -> None:
    program = """
        import random, multiprocessing.process as p
        print(random.getrandbits(128), p.current_process().authkey.hex())
    """
    values = [run(program).stdout for _ in range(3)]
    assert len({value.split()[0] for value in values}) == 3
    assert len({value.split()[1] for value in values}) == 3


def test_variables_that_modules_read_while_they_are_imported_lead_to_a_fresh_interpreter(
    run: Callable[..., ProgramResult],
) -> None:
    program = "import sys; print([type(f).__name__ for f in sys.meta_path].count('Stash'))"
    assert run(program).stdout == b"1\n"
    assert run(program, env={"OTHER": "1"}).stdout == b"1\n"
    assert run(program, env={"MPLBACKEND": "svg"}).stdout == b"0\n"
    assert run(program, env={"PYTHONWARNINGS": "error"}).stdout == b"0\n"


def test_a_module_that_cannot_be_imported_leaves_the_others(run: Callable[..., ProgramResult]) -> None:
    result = run("import json; print(json.dumps([1]))", preload=("nowhere", "json", "json.nowhere"))
    assert (result.stdout, result.stderr) == (b"[1]\n", b"")


def test_what_imports_print_is_not_the_programs_output(run: Callable[..., ProgramResult]) -> None:
    result = run("print('mine')", preload=("this", "antigravity_is_not_there"))
    assert (result.stdout, result.stderr) == (b"mine\n", b"")


def test_without_memory_nothing_is_preloaded() -> None:
    with agent_process(preload=_LIST, mem_mib=128) as agent:
        assert agent.answers()
        assert list(agent.runners().values()) == [False]


def test_a_program_that_names_nothing_of_the_list_gets_the_plain_runner() -> None:
    program = "import sys; print([type(f).__name__ for f in sys.meta_path].count('Stash'))"
    with agent_process(preload=("json", "decimal")) as agent:
        agent.wait_until_preloaded()
        assert agent.run(program).stdout == b"0\n"
        assert agent.run(f"{program} # json").stdout == b"1\n"
        assert agent.run(f"{program} # json").stdout == b"0\n"


def test_a_program_that_comes_before_preloading_has_ended_runs_at_once() -> None:
    with agent_process(preload=_LIST) as agent:
        results = [agent.run("print(1)") for _ in range(3)]
        assert [result.stdout for result in results] == [b"1\n"] * 3
        assert agent.run("echo 1", lang="bash").stdout == b"1\n"
        assert agent.answers()


def test_a_runner_that_cannot_preload_leaves_the_plain_one() -> None:
    with agent_process(preload=("json", "antigravity")) as agent:
        assert agent.run("print(1)").stdout == b"1\n"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"json\nxml.etree\n", ["json", "xml.etree"]),
        (b"# a comment\n\n json \n", ["json"]),
        (b"", []),
        (b"json; import os", []),
        (b"json\n../x", []),
        (b"\xff", []),
        (b"a\n" * 300, []),
        (b"a" * 20000, []),
    ],
    ids=["names", "a comment", "nothing", "a statement", "a path", "no text", "too many", "too long"],
)
def test_a_list_is_names_of_modules_or_none(tmp_path: Path, content: bytes, expected: list[str]) -> None:
    (tmp_path / "list").write_bytes(content)
    assert preload_list(str(tmp_path / "list")) == expected
    assert preload_list(str(tmp_path / "missing")) == []
