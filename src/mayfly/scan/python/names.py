"""One name for each thing: `posix.system`, `io.open` and `requests.Session().get` by the names rules know."""

from __future__ import annotations

import re
import string
from functools import lru_cache

__all__ = ["CONSTANTS", "canonical"]

CONSTANTS = {
    "sys.executable": "python3",
    "os.sep": "/",
    "os.path.sep": "/",
    "os.curdir": ".",
    "os.pardir": "..",
    "os.linesep": "\n",
    "os.devnull": "/dev/null",
    "string.ascii_letters": string.ascii_letters,
    "string.ascii_lowercase": string.ascii_lowercase,
    "string.ascii_uppercase": string.ascii_uppercase,
    "string.digits": string.digits,
    "string.punctuation": string.punctuation,
    "string.printable": string.printable,
}
"""Attributes of modules whose value is the same everywhere."""

_STARTS = {
    "builtins.": "",
    "__builtins__.": "",
    "__builtin__.": "",
    "posix.": "os.",
    "nt.": "os.",
    "posixpath.": "os.path.",
    "_io.": "io.",
    "_socket.": "socket.",
    "_pickle.": "pickle.",
    "cPickle.": "pickle.",
    "six.moves.urllib.": "urllib.",
    "urllib2.": "urllib.request.",
    "requests.api.": "requests.",
    "requests.sessions.": "requests.",
    "importlib.__import__": "__import__",
    "_thread.": "threading.",
    "_ctypes.": "ctypes.",
    "asyncio.subprocess.": "asyncio.",
}
_WHOLE = {
    "io.open": "open",
    "codecs.open": "open",
    "os.fdopen": "open",
    "io.FileIO": "open",
    "urllib.urlopen": "urllib.request.urlopen",
    "urllib.urlretrieve": "urllib.request.urlretrieve",
    "pathlib.PosixPath": "pathlib.Path",
    "pathlib.PurePath": "pathlib.Path",
    "pathlib.PurePosixPath": "pathlib.Path",
    "pathlib.WindowsPath": "pathlib.Path",
    "os.getenvb": "os.getenv",
    "os.environb": "os.environ",
    "socket.SocketType": "socket.socket",
    "requests.session": "requests.Session",
}
# A session or client object does what the module's functions do.
_SESSIONS = re.compile(
    r"^(requests\.Session|httpx\.(?:Async)?Client|aiohttp\.ClientSession|urllib3\.PoolManager|requests_html\.HTMLSession)\(\)"
)
# `subprocess.os.system`: a module reached through another one's imports.
_THROUGH = re.compile(r"^[a-z_]\w*\.(?:\w+\.)*?(os|sys|subprocess|socket|builtins|importlib|shutil)\.(?=[a-z_])")
_PATH_METHODS = re.compile(
    r"^pathlib\.Path(?:\(\)|\.)+\.?(?:home\(\)|cwd\(\)|parent|absolute\(\)|resolve\(\)|expanduser\(\)|joinpath\(\)"
    r"|with_suffix\(\)|with_name\(\))"
)


@lru_cache(maxsize=4096)
def canonical(name: str) -> str:
    """The name that the tables use."""
    for start, instead in _STARTS.items():
        if name.startswith(start):
            name = instead + name[len(start) :]
            break
    if match := _SESSIONS.match(name):
        name = match[1].split(".")[0] + name[match.end() :]
    if _PATH_METHODS.match(name):
        name = _PATH_METHODS.sub("pathlib.Path()", name)
    if (match := _THROUGH.match(name)) and not name.startswith("os.path."):
        name = name[match.start(1) :].removeprefix("builtins.")
    return _WHOLE.get(name, name)
