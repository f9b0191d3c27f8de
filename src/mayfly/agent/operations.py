"""The operations of a sandbox that keeps state, by name."""

from __future__ import annotations

import os

from mayfly.agent import filecalls, jobcalls
from mayfly.agent.coderun import CodeRun
from mayfly.agent.contexts import Context
from mayfly.agent.fields import RequestError, bad, environment, number, text
from mayfly.agent.interpreters import LANGUAGES
from mayfly.agent.metrics import metrics
from mayfly.agent.rehearsal import begin_warming
from mayfly.guest.frames import FrameType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from mayfly.agent.connection import Begin, Connection, Operation
    from mayfly.agent.server import Server

__all__ = ["begin"]


def begin(server: Server, connection: Connection, op: str, args: dict[str, Any]) -> Operation | None:
    """Does a short one and closes, or returns what goes on. Raises RequestError."""
    try:
        call = _OPERATIONS[op]
    except KeyError:
        raise RequestError("bad_request", "op: there is no such operation") from None
    return call(server, connection, args)


def _answer(connection: Connection, shape: dict[str, object]) -> None:
    connection.send(FrameType.ANSWER, shape)
    connection.finish()


class _Waiting:
    """Waits for something that cannot be called off."""

    full = False

    def frame(self, _: object) -> None:
        raise RequestError("bad_request", "nothing may follow this request")

    def resume_output(self) -> None:
        """Nothing is sent before the answer."""

    def abort(self) -> None:
        """What was begun goes on."""


def _context_shape(context: Context) -> dict[str, object]:
    """A context as it is told to the host."""
    return {
        "id": context.id,
        "lang": context.lang,
        "cwd": context.cwd,
        "busy": context.current is not None,
        "execution_count": context.execution_count,
    }


def _create(server: Server, connection: Connection, args: dict[str, Any]) -> Operation:
    lang = text(args, "lang", 16)
    if lang not in LANGUAGES:
        raise bad("lang", "python, javascript or bash")
    context_id = text(args, "context", 64)
    home = server.settings.home
    cwd = os.path.join(home, text(args, "cwd", 4096)) if args.get("cwd") is not None else home
    pids = int(number(args, "pids", 1, 1 << 20))
    context = Context(server, context_id, lang, cwd=cwd, env=environment(args), pids=pids)

    def ready(failure: str) -> None:
        if failure:
            connection.fail("start_failed", failure)
        else:
            _answer(connection, _context_shape(context))

    server.contexts.add(context, ready)
    return _Waiting()


def _list(server: Server, connection: Connection, _: dict[str, Any]) -> None:
    for context in server.contexts.all():
        connection.send(FrameType.PART, {"items": [_context_shape(context)]})
    _answer(connection, {})


def _restart(server: Server, connection: Connection, args: dict[str, Any]) -> Operation:
    def ready(failure: str) -> None:
        if failure:
            connection.fail("start_failed", failure)
        else:
            _answer(connection, {})

    server.contexts.get(text(args, "context", 64)).restart(ready)
    return _Waiting()


def _remove(server: Server, connection: Connection, args: dict[str, Any]) -> None:
    server.contexts.remove(text(args, "context", 64))
    _answer(connection, {})


def _interrupt(server: Server, connection: Connection, args: dict[str, Any]) -> None:
    nonce = text(args, "nonce", 128) if args.get("nonce") is not None else None
    _answer(connection, {"interrupted": server.contexts.get(text(args, "context", 64)).interrupt(nonce)})


def _run(server: Server, connection: Connection, args: dict[str, Any]) -> Operation:
    context = server.contexts.get(text(args, "context", 64))
    run = CodeRun(connection, context, args)
    context.submit(run)
    return run


def _metrics(server: Server, connection: Connection, _: dict[str, Any]) -> None:
    _answer(connection, metrics(server))


_OPERATIONS: dict[str, Begin] = {
    "context_create": _create,
    "context_list": _list,
    "context_restart": _restart,
    "context_remove": _remove,
    "context_interrupt": _interrupt,
    "run": _run,
    "metrics": _metrics,
    "warm": begin_warming,
    **filecalls.OPERATIONS,
    **jobcalls.OPERATIONS,
}
