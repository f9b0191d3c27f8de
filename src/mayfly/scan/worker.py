"""The scan as a process of its own: `python -m mayfly.scan.worker`, requests on descriptor 0, replies on 1.

It is started ahead of need and limited in memory and CPU time, because a hostile program may make a parser use
either. It says it is ready with an empty reply, serves one request after another, and ends with its input.
"""

from __future__ import annotations

import gc
import os
import resource
import sys

from mayfly.errors import MayflyError
from mayfly.scan.engine import scan, unparseable
from mayfly.scan.policy import Policy, builtin_policy
from mayfly.scan.wire import HEADER_BYTES, MAX_REQUEST_BYTES, Reply, Request, body_length, decode, encode

__all__ = ["main"]

_MEMORY_BYTES = 512 * 1024 * 1024
_CPU_S_PER_REQUEST = 10
# A chain of three hundred `elif` is nested three hundred deep.
_RECURSION_LIMIT = 8000
_WARM_UP = (
    ("python", b"import os\nfor i in range(3):\n    print(os.path.join('a', str(i)))\n"),
    ("bash", b"for i in 1 2 3; do echo $i; done\n"),
)


def _limit() -> None:
    """No more memory than a scan needs, no core, no files written. The CPU limit moves with each request."""
    for what, value in (
        (resource.RLIMIT_AS, _MEMORY_BYTES),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
    ):
        _, hard = resource.getrlimit(what)
        wanted = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(what, (wanted, wanted))


def _allow_cpu() -> None:
    """Let this request use its share: past the limit the kernel ends the process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    wanted = int(used.ru_utime + used.ru_stime) + 1 + _CPU_S_PER_REQUEST
    resource.setrlimit(resource.RLIMIT_CPU, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def _read_exactly(count: int) -> bytes | None:
    """`count` bytes, or None when the input ended."""
    parts: list[bytes] = []
    while count:
        part = os.read(0, min(count, 1 << 20))
        if not part:
            return None
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


def _read_request() -> Request | None:
    header = _read_exactly(HEADER_BYTES)
    body = _read_exactly(body_length(header, MAX_REQUEST_BYTES)) if header else None
    return decode(body, Request) if body is not None else None


def _serve() -> None:
    policy: Policy = builtin_policy("default")
    manifest = None
    while (request := _read_request()) is not None:
        _allow_cpu()
        policy = request.policy or policy
        manifest = None if request.no_manifest else request.manifest or manifest
        keep: list[object] = []
        verdict = scan(
            request.source,
            lang=request.lang,
            policy=policy,
            manifest=manifest,
            file_name=request.file_name,
            keep=keep,
        )
        reply = encode(Reply(verdict=verdict))
        del request, verdict
        _write(reply)
        # Nobody waits now; while a program is scanned, freeing and looking for cycles would only cost time.
        del keep
        gc.collect()


def main() -> int:
    """Serve until the input ends. Exit code 1 when what came is not the protocol."""
    _limit()
    sys.setrecursionlimit(_RECURSION_LIMIT)
    for lang, program in _WARM_UP:
        scan(program, lang=lang, policy=builtin_policy("default"))  # type: ignore[arg-type]
    gc.collect()
    gc.freeze()
    gc.disable()
    _write(encode(Reply()))
    try:
        _serve()
    except MemoryError:
        _write(encode(Reply(verdict=unparseable("the scan used up its memory"))))
        return 1
    except (MayflyError, BrokenPipeError, ConnectionError):
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
