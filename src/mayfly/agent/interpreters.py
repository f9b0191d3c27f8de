"""How each language's interpreter is started, and told what to run."""

from __future__ import annotations

import os

from mayfly.agent import process
from mayfly.agent.channel import INIT, RUN, message
from mayfly.agent.fields import RequestError
from mayfly.guest.frames import to_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mayfly.agent.coderun import CodeRun
    from mayfly.agent.process import Child
    from mayfly.agent.server import Server

__all__ = ["LANGUAGES", "init_message", "run_message", "start_interpreter"]

LANGUAGES = ("python", "javascript", "bash")
_NODES = ("/usr/bin/node", "/usr/local/bin/node")
_BOOT = """\
# Wants a runner that has IPython, numpy, pandas and matplotlib ready, where one waits.
import sys
sys.path.insert(0, {root!r})
from mayfly.agent.inside.python import main
sys.path.remove({root!r})
main(3)
"""

# An interactive bash, for only that comes back to its next line when a command is interrupted. It reads its lines from
# the socket; the messages that it writes have one length each.
_BASH_INIT = b"PS1= PS2= PROMPT_COMMAND=; unset HISTFILE; set +o history +H; builtin printf '\\0\\0\\0\\0o' >&3\n"
_BASH_DONE = b"builtin printf '\\0\\0\\0\\021d{\"exit_code\":%3d}' $? >&3\n"


def start_interpreter(server: Server, lang: str, cwd: str, env: dict[str, str]) -> Child:
    """Starts it; it says by itself when it is ready. Raises RequestError where there is no such language, OSError."""
    settings = server.settings
    variables = process.base_environment(settings) | env
    if lang == "python":
        return _start_python(server, variables)
    if lang == "bash":
        argv = [settings.bash, "-c", f"exec {settings.bash} --noprofile --norc --noediting -i <&3"]
    else:
        node = next((path for path in _NODES if os.access(path, os.X_OK)), None)
        if node is None:
            raise RequestError("unsupported", "this image has no Node.js; the image `node` has")
        argv = [node, f"{settings.site}/inside/node.js"]
    return server.spawn(
        lambda enclosure: process.spawn_command(settings, enclosure, argv, env=variables, cwd=cwd, keeps_control=True)
    )


def _start_python(server: Server, variables: dict[str, str]) -> Child:
    root = os.path.dirname(os.path.dirname(server.settings.site))
    source = _BOOT.format(root=root).encode()
    env = variables | {"MAYFLY_CONTEXT": "1"}
    child = server.runners.take(source)
    try:
        process.send_request(child, process.Program("context", source, args=[], env=env, rlimits=[]))
    except OSError:
        child.close()
        child.enclosure.kill()
        child.enclosure.remove()
        raise
    return child


def init_message(lang: str, cwd: str) -> bytes:
    """The first thing an interpreter hears."""
    return _BASH_INIT if lang == "bash" else message(INIT, to_json({"cwd": cwd}).encode())


def run_message(lang: str, run: CodeRun) -> bytes:
    """What tells the interpreter to run it."""
    if lang == "bash":
        variables = "".join(f"{name}={_quoted(value)} " for name, value in run.env.items() if name.isidentifier())
        line = f"{variables}eval -- {_quoted(run.code)} </dev/null\n"
        return line.encode("utf-8", "replace") + _BASH_DONE
    request = {
        "code": run.code,
        "env": run.env,
        "result_bytes": run.result_bytes,
        "item_bytes": run.item_bytes,
        "figure_formats": run.figure_formats,
    }
    return message(RUN, to_json(request).encode())


def _quoted(text: str) -> str:
    """One word of bash, on one line."""
    return "$'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n").replace("\r", "\\r") + "'"
