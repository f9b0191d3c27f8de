"""What a program sees and what comes back of it: the agent as a plain process, real interpreters."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from mayfly.guest.frames import FrameType, encode
from mayfly.testing.agent import AgentProcess, agent_process, exec_frames

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PYTHON = "/usr/bin/python3" if os.access("/usr/bin/python3", os.X_OK) else sys.executable


@pytest.fixture(scope="module")
def agent() -> Iterator[AgentProcess]:
    with agent_process() as agent:
        yield agent


def test_hello_world(agent: AgentProcess) -> None:
    result = agent.run("print('hello, world')")
    assert (result.stdout, result.stderr, result.exit_code) == (b"hello, world\n", b"", 0)


def test_started_comes_first_and_exit_last_and_both_repeat_the_nonce(agent: AgentProcess) -> None:
    frames = agent.run("print(1); import sys; print(2, file=sys.stderr)").frames
    assert frames[0].type == FrameType.STARTED
    assert frames[-1].type == FrameType.EXIT
    assert {frame.type for frame in frames[1:-1]} == {FrameType.STDOUT, FrameType.STDERR}
    assert frames[0].json()["nonce"] == frames[-1].json()["nonce"] == "nonce-of-this-test"


# What `python3 main.py` does is the measure: each of these runs both ways, and must look the same.
_PROGRAMS: dict[str, str | bytes] = {
    "nothing": "",
    "uncaught exception": "def f():\n    return 1 / 0\n\nf()\n",
    "chained exceptions": "try:\n    {}['x']\nexcept KeyError as e:\n    raise ValueError('no') from e\n",
    "exception group": "raise ExceptionGroup('g', [ValueError(1), TypeError(2)])\n",
    "deep recursion": "def f(n):\n    return f(n + 1)\nf(0)\n",
    "depth of the stack": "import sys, inspect\nprint(len(inspect.stack()))\nsys._getframe(1)\n",
    "printed stack": "import traceback\ndef f():\n    traceback.print_stack()\nf()\n",
    "syntax error": "x = 1\nif x = = 2:\n    pass\n",
    "indentation error": "def f():\nreturn 1\n",
    "syntax warning": "print(1 is 1)\n",
    "null byte": "print(1)\0\n",
    "no UTF-8": b"print('\xff')\n",
    "latin-1 by its cookie": b"# -*- coding: latin-1 -*-\nprint(ascii('\xe9'))\n",
    "byte order mark": b"\xef\xbb\xbfprint('bom')\n",
    "future import": "from __future__ import annotations\ndef f(x: nope): ...\nprint(f.__annotations__)\n",
    "sys.exit()": "import sys; sys.exit()",
    "sys.exit(0)": "import sys; sys.exit(0)",
    "sys.exit(7)": "import sys; sys.exit(7)",
    "sys.exit(-1)": "import sys; sys.exit(-1)",
    "sys.exit(256)": "import sys; sys.exit(256)",
    "sys.exit(text)": "import sys; sys.exit('the reason')",
    "sys.exit(None)": "import sys; sys.exit(None)",
    "sys.exit(object)": "import sys; sys.exit([1, 2])",
    "raise SystemExit": "raise SystemExit(3)",
    "os._exit": "import os; print('lost?', flush=True); os._exit(9)",
    "exit in a thread": "import threading, sys\nthreading.Thread(target=sys.exit, args=(3,)).start()\nprint('on')\n",
    "error in a thread": "import threading\nt = threading.Thread(target=lambda: 1 / 0)\nt.start(); t.join()\n",
    "thread outlives main": "import threading, time\nthreading.Timer(0.05, print, ['late']).start()\nprint('end')\n",
    "atexit": "import atexit\natexit.register(print, 1)\natexit.register(print, 2)\nraise ValueError\n",
    "error in atexit": "import atexit\natexit.register(lambda: 1 / 0)\n",
    "own excepthook": "import sys\nsys.excepthook = lambda *a: print('hook', a[0].__name__, a[2].tb_lineno)\n1 / 0\n",
    "unraisable": "class A:\n    def __del__(self):\n        1 / 0\na = A()\ndel a\n",
    "KeyboardInterrupt": "raise KeyboardInterrupt\n",
    "own names": "print(__name__, __file__, __doc__, __spec__, __package__, sorted(globals()))\n",
    "docstring": "'''The doc.'''\nprint(__doc__)\n",
    "argv and path": "import sys\nprint(sys.argv, sys.path[0], sys.flags, sys.orig_argv[1:], sys.warnoptions)\n",
    "modules": "import sys\nprint(sorted(set(sys.modules) - {'sitecustomize', 'apport_python_hook'}))\n",
    "importer cache": "import sys\nprint(sorted(p for p in sys.path_importer_cache if 'usr' not in p))\n",
    "garbage collector": "import gc\nclass A: pass\na = A(); a.a = a; del a\nprint(gc.collect() > 0)\n",
    "streams": "import sys\nfor s in (sys.stdin, sys.stdout, sys.stderr): print(s.encoding, s.errors)\n",
    "environment": "import os\nprint(sorted(os.environ))\n",
    "descriptors": "import os\nprint(sorted(os.listdir('/proc/self/fd')))\n",
    "directory": "import os\nprint(os.listdir('.'), oct(os.umask(0)))\n",
    "signals": "import signal\nprint([(s, signal.getsignal(s)) for s in signal.valid_signals()])\n",
    "source of own function": "import inspect\ndef f(): return 1\nprint(inspect.getsource(f))\n",
    "pickle of own class": "import pickle\nclass A: pass\nprint(type(pickle.loads(pickle.dumps(A()))) is A)\n",
    "import of itself": "if __name__ == '__main__':\n    import main, sys; print(sys.modules['__main__'] is main)\n",
    "multiprocessing spawn": (
        "import multiprocessing as m\ndef f(x): print('child', x, __name__)\nif __name__ == '__main__':\n"
        "    p = m.get_context('spawn').Process(target=f, args=(5,)); p.start(); p.join(); print(p.exitcode)\n"
    ),
    "asyncio": "import asyncio\nasync def main():\n    await asyncio.sleep(0); print('done')\nasyncio.run(main())\n",
    "input at end of file": "input('name? ')\n",
    "closed stdout": "import sys\nsys.stdout.close()\n",
    "broken pipe by close": "import os\nos.close(1)\nprint('x')\n",
    "resource warnings": "import warnings\nwarnings.warn('careful')\n",
    "warning two levels up": "import warnings\nwarnings.warn('careful', stacklevel=2)\n",
    "logging": "import logging\nlogging.warning('w'); logging.exception('e', stack_info=True)\n",
    "site": "import site, sys\nprint(site.ENABLE_USER_SITE, sys.prefix, sys.executable)\n",
    "recompiling itself": "code = open(__file__).read()\nprint(len(code))\n",
    "exec and eval": "exec('x = 1'); print(eval('x'))\n",
    "dataclass": "from dataclasses import dataclass\n@dataclass\nclass A:\n    x: int = 1\nprint(A())\n",
    "typing of main": "import typing\nclass A:\n    x: 'A'\nprint(typing.get_type_hints(A))\n",
    "nested calls in traceback": "\n".join(f"def f{n}(): f{n + 1}()" for n in range(30))
    + "\ndef f30(): raise ValueError('deep')\nf0()\n",
}


@pytest.mark.parametrize("name", _PROGRAMS)
def test_a_program_looks_as_under_plain_python(agent: AgentProcess, name: str, tmp_path: Path) -> None:
    program = _PROGRAMS[name]
    source = program if isinstance(program, bytes) else program.encode()
    home = agent.run("import os; print(os.getcwd(), end='')").stdout
    assert agent.run("rm -rf -- *", lang="bash").exit_code == 0
    result = agent.run(source)

    (tmp_path / "main.py").write_bytes(source)
    env = {
        "HOME": str(tmp_path),
        "LANG": "C.UTF-8",
        "LOGNAME": "user",
        "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin",
        "SHELL": "/bin/bash",
        "USER": "user",
    }
    plain = subprocess.run(
        [_PYTHON, "main.py"],
        cwd=tmp_path,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
    expected_signal = None if plain.returncode >= 0 else -plain.returncode
    assert _comparable(result.stdout, home) == _comparable(plain.stdout, str(tmp_path).encode())
    assert _comparable(result.stderr, home) == _comparable(plain.stderr, str(tmp_path).encode())
    assert result.report is not None
    if expected_signal is None:
        assert (result.reason, result.exit_code) == ("exit", plain.returncode)
    else:
        assert (result.reason, result.report["signal"]) == ("signal", "SIGINT")


def _comparable(text: bytes, home: bytes) -> bytes:
    return re.sub(rb"0x[0-9a-f]+", b"0x", text.replace(home, b"HOME"))


def test_arguments_environment_and_filename_arrive(agent: AgentProcess) -> None:
    program = "import sys, os\nprint(sys.argv, os.environ['A'], os.environ['LANG'], __file__.split('/')[-1])"
    result = agent.run(program, filename="job-1.py", args=["-x", "a b", "ü"], env={"A": "1=2"})
    assert result.stdout.decode() == "['job-1.py', '-x', 'a b', 'ü'] 1=2 C.UTF-8 job-1.py\n"


@pytest.mark.parametrize(
    ("env", "program", "expected"),
    [
        ({"PYTHONOPTIMIZE": "1"}, "assert False; print('optimised')", b"optimised\n"),
        ({"PYTHONHASHSEED": "0"}, "import sys; print(sys.flags.hash_randomization)", b"0\n"),
        ({"PYTHONIOENCODING": "latin-1"}, "print('é')", b"\xe9\n"),
        (
            {"LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
            "import locale; print(locale.getlocale()[0])",
            b"None\n",
        ),
        ({"TZ": "America/New_York"}, "import time; print(time.tzname[0])", b"EST\n"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_variables_that_python_reads_at_its_start_count(
    agent: AgentProcess, env: dict[str, str], program: str, expected: bytes
) -> None:
    assert agent.run(program, env=env).stdout == expected


def test_stdin_is_echoed_byte_for_byte(agent: AgentProcess) -> None:
    data = bytes(range(256)) * 3000
    program = "import sys\nsys.stdout.buffer.write(sys.stdin.buffer.read())"
    assert agent.run(program, stdin=data).stdout == data


def test_stdin_that_nobody_reads_is_no_error(agent: AgentProcess) -> None:
    assert agent.run("print('done')", stdin=b"x" * 1_000_000).stdout == b"done\n"


def test_closed_stdin_is_no_error(agent: AgentProcess) -> None:
    program = "import os, time\nos.close(0)\ntime.sleep(0.1)\nprint('done')"
    assert agent.run(program, stdin=b"x" * 1_000_000).stdout == b"done\n"


def test_stdin_is_empty_when_none_was_announced(agent: AgentProcess) -> None:
    assert agent.run("import sys; print(repr(sys.stdin.read()))").stdout == b"''\n"


def test_output_that_is_no_text_comes_unchanged(agent: AgentProcess) -> None:
    result = agent.run("import os; os.write(1, bytes([0, 255, 254])); os.write(2, b'\\xc3')")
    assert (result.stdout, result.stderr) == (b"\x00\xff\xfe", b"\xc3")


def test_output_comes_before_the_end(agent: AgentProcess) -> None:
    program = b"import sys\nprint('ready', flush=True)\nprint(sys.stdin.readline())"
    with agent.connect() as connection:
        connection.sendall(exec_frames(program, stdin=b"")[: -len(encode(FrameType.STDIN, b""))])
        seen = b""
        while b"ready" not in seen:
            seen += connection.recv(65536)
        connection.sendall(encode(FrameType.STDIN, b"go\n"))
        while b"go\n" not in seen:
            seen += connection.recv(65536)


def test_a_program_that_closes_its_output_still_runs_to_its_end(agent: AgentProcess) -> None:
    result = agent.run("import os, time\nos.close(1); os.close(2)\ntime.sleep(0.1)\nos._exit(5)")
    assert (result.stdout, result.exit_code) == (b"", 5)


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGKILL", "SIGTERM", "SIGPIPE"])
def test_death_by_signal_names_it(agent: AgentProcess, name: str) -> None:
    result = agent.run(f"import os, signal\nsignal.signal(13, 0)\nos.kill(os.getpid(), signal.{name})")
    assert result.report is not None
    assert (result.reason, result.exit_code, result.report["signal"]) == ("signal", None, name)


def test_exit_codes_of_bash(agent: AgentProcess) -> None:
    result = agent.run(
        'echo "$0 $1 $A"; cat; echo bad >&2; exit 3', lang="bash", args=["x y"], env={"A": "b"}, stdin=b"in"
    )
    assert (result.stdout, result.stderr, result.exit_code) == (b"main.sh x y b\nin", b"bad\n", 3)


def test_a_shell_gets_default_signals_and_its_environment_only(agent: AgentProcess) -> None:
    result = agent.run("trap -p; env | cut -d= -f1 | sort | tr '\\n' ' '", lang="bash")
    assert result.stdout == b"HOME LANG LOGNAME PATH PWD SHELL SHLVL USER _ "


def test_programs_run_without_rights(agent: AgentProcess) -> None:
    result = agent.run("print(open('/proc/self/status').read())")
    assert b"NoNewPrivs:\t1" in result.stdout
    if os.getuid() != 0:
        pytest.skip("dropping to another user needs root")
    assert re.search(rb"Uid:\t1000\t1000\t1000\t1000\nGid:\t1000\t1000\t1000\t1000", result.stdout)
    assert re.search(rb"Groups:\t ?\n", result.stdout)


def test_limits_of_the_shell_are_sane(agent: AgentProcess) -> None:
    result = agent.run("ulimit -c; ulimit -n; umask", lang="bash")
    assert result.stdout == b"0\n1024\n0022\n"


def test_random_numbers_differ_between_runs(agent: AgentProcess) -> None:
    program = "import random, os; print(random.random(), os.urandom(8))"
    assert agent.run(program).stdout != agent.run(program).stdout


def test_a_planted_link_is_not_written_through(agent: AgentProcess) -> None:
    agent.run("echo safe > target; ln -sf target main.py; ln -sf target main.sh", lang="bash", filename="plant.sh")
    agent.run("pass")
    agent.run("true", lang="bash")
    assert agent.run("cat target", lang="bash", filename="look.sh").stdout == b"safe\n"


def test_no_trace_of_the_runner_is_left_in_the_home(agent: AgentProcess) -> None:
    agent.run("1/0")
    agent.run("x = = 1")
    names = agent.run("import os; print([n for n in os.listdir('.') if n.startswith('.')])").stdout
    assert names == b"[]\n"


def test_usage_counts_what_was_written_and_used(agent: AgentProcess) -> None:
    report = agent.run("print('x' * 10000); a = bytearray(50_000_000); import sys; sys.stderr.write('ab')").report
    assert report is not None
    usage = report["usage"]
    assert (usage["stdout_bytes"], usage["stderr_bytes"]) == (10001, 2)
    assert usage["wall_ms"] > 0
    assert usage["cpu_ms"] > 0
    assert usage["mem_peak_bytes"] > 50_000_000


def test_the_reported_frames_are_json_that_anything_reads(agent: AgentProcess) -> None:
    frames = agent.run("pass").frames
    assert json.loads(frames[-1].payload)["reason"] == "exit"
