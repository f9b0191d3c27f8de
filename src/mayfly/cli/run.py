"""`mayfly run`: one program, its streams passed through, its exit code ours."""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING, Any

import click

from mayfly.cli import completion
from mayfly.cli.failure import BROKEN_PIPE, FAILED, INTERRUPTED, exit_code_of, show_failure

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable

    from mayfly.cli.program import Program
    from mayfly.config import Config
    from mayfly.model import Event, Execution, ExecutionRequest

__all__ = ["run"]

_OPTIONS = {
    "limits.timeout_s": "--timeout",
    "limits.mem_mib": "--mem",
    "limits.vcpus": "--vcpus",
    "limits.scratch_mib": "--scratch",
    "limits.io_mbps": "--io-mbps",
    "image": "--image",
    "lang": "--lang",
    "policy": "--policy",
    "approve": "--approve",
    "env": "--env",
    "args": "ARGS",
    "node": "--node",
}


@click.command(short_help="Run a program in a microVM of its own.")
@click.argument("words", nargs=-1, metavar="[FILE|-] [-- ARGS…]", shell_complete=completion.files)
@click.option("-c", "code", metavar="CODE", help="The program itself, instead of a file.")
@click.option(
    "--lang",
    metavar="python|bash",
    help="Language; by default from FILE's ending or its #! line.",
    shell_complete=completion.words("python", "bash"),
)
@click.option("--timeout", type=float, metavar="SECONDS", help="Stop it after this long (0.1 to 3600; 30).")
@click.option("--mem", type=int, metavar="MIB", help="Memory of the microVM (64 to 16384; 256).")
@click.option("--vcpus", type=int, metavar="N", help="Processors of the microVM (1 to 8; 1).")
@click.option("--scratch", type=int, metavar="MIB", help="Disk for what it writes (0 or 16 to 16384; 0: memory).")
@click.option("--io-mbps", type=int, metavar="MIB", help="MiB a second of each of its disks (1 to 10000; 400).")
@click.option("--image", metavar="NAME", help="Image to run in; by default the language's.")
@click.option("--env", "env", multiple=True, metavar="NAME=VALUE", help="Environment variable; may be repeated.")
@click.option(
    "--policy",
    metavar="NAME",
    default="default",
    help="What the scan refuses (default, strict, research, or the operator's).",
    shell_complete=completion.words("default", "strict", "research"),
)
@click.option("--approve", multiple=True, metavar="ID", help="Take responsibility for a finding (RULE@LINE:COLUMN).")
@click.option("--json", "as_json", is_flag=True, help="Print the whole result as one JSON object at the end.")
@click.option("--timings", is_flag=True, help="Say afterwards how long each stage took.")
@click.option("--node", metavar="ADDRESS", help="The node to use: unix:PATH or http://HOST:PORT.")
def run(words: tuple[str, ...], code: str | None, **options: Any) -> int:
    """Run FILE, standard input (-) or CODE in a Firecracker microVM of its own, which is destroyed afterwards.

    Standard input goes to the program, its output comes as it is written, and its exit code is the exit code;
    124: out of time, 125: Mayfly failed, 126: refused by the scan, 137: out of memory, 2: wrong use.
    """
    from mayfly.cli.program import read_program
    from mayfly.errors import InvalidRequestError, MayflyError

    source, args = (None, words) if code is not None else ((words[0], words[1:]) if words else (None, ()))
    try:
        config = _config(options)
        program = read_program(source, code, options["lang"])
        request = _request(program, args, options, config)
        return _Session(program, request, config, options).run()
    except InvalidRequestError as error:
        if options["as_json"]:
            return _json_failure(error)
        raise click.UsageError(_in_options(error)) from None
    except MayflyError as error:
        if options["as_json"]:
            return _json_failure(error)
        raise


def _config(options: dict[str, Any]) -> Config:
    from mayfly.config import load_config

    given = {
        "timeout_s": options["timeout"],
        "mem_mib": options["mem"],
        "vcpus": options["vcpus"],
        "scratch_mib": options["scratch"],
        "io_mbps": options["io_mbps"],
    }
    limits = {name: value for name, value in given.items() if value is not None}
    return load_config(os.environ, flags={"node": options["node"], "limits": limits or None})


def _request(program: Program, args: tuple[str, ...], options: dict[str, Any], config: Config) -> ExecutionRequest:
    import msgspec

    from mayfly.validation import make_request

    env = {}
    for pair in options["env"]:
        name, found, value = pair.partition("=")
        if not found:
            raise click.UsageError(f"--env must be NAME=VALUE, not {pair!r}")
        env[name] = value
    return make_request(
        {
            "code": program.code,
            "lang": program.lang,
            "image": options["image"],
            "limits": msgspec.structs.asdict(config.limits),
            "policy": options["policy"],
            "approve": list(options["approve"]),
            "args": list(args),
            "env": env,
            "filename": program.filename,
        }
    )


def _in_options(error: Any) -> str:
    """The error's sentence with the option's name in place of the field's."""
    for field, option in _OPTIONS.items():
        if error.field and re.match(rf"{re.escape(field)}(?![a-z_])", error.message):
            return option + str(error).removeprefix(field)
    return str(error)


def _json_failure(error: Any) -> int:
    import msgspec

    click.echo(msgspec.json.encode({"error": error.to_dict()}))
    return exit_code_of(error) or FAILED


class _Session:
    """One run from finding a node to the last line on standard error."""

    def __init__(self, program: Program, request: ExecutionRequest, config: Config, options: dict[str, Any]) -> None:
        self._program = program
        self._request = request
        self._config = config
        self._options = options

    def run(self) -> int:
        from mayfly.cli.report import ending, refusal, timings
        from mayfly.host.eventloop import run

        try:
            execution = run(self._execute())
        except KeyboardInterrupt:
            return INTERRUPTED
        except BrokenPipeError as error:
            # Here, since click would make exit code 1 of it.
            show_failure(error)
            return BROKEN_PIPE
        name = self._program.filename or ("stdin" if self._program.from_stdin else "program")
        if self._options["as_json"]:
            self._print_json(execution)
        elif execution.status == "denied":
            click.echo(refusal(execution, self._program.code, name=name, policy=self._request.policy), err=True)
        elif said := ending(execution, self._request.limits):
            click.echo(said, err=True)
        if self._options["timings"]:
            click.echo(timings(execution), err=True)
        return execution.exit_code

    async def _execute(self) -> Execution:
        from mayfly.cli.report import Progress
        from mayfly.cli.stdio import has_input, input_chunks
        from mayfly.client.discovery import find_node
        from mayfly.host.paths import state_paths

        progress = Progress()
        try:
            client = await find_node(None, config=self._config, paths=state_paths(os.environ), on_progress=progress.say)
        finally:
            progress.close()
        stdin: AsyncIterable[bytes] | None = None
        if not self._program.from_stdin and has_input():
            stdin = input_chunks()
        on_event: Callable[[Event], Awaitable[None]] | None = None if self._options["as_json"] else _write
        return await client.execute(self._request, on_event=on_event, stdin=stdin)

    @staticmethod
    def _print_json(execution: Execution) -> None:
        import msgspec

        data = msgspec.json.encode(execution)
        click.echo(msgspec.json.format(data, indent=2) if sys.stdout.isatty() else data)


async def _write(event: Event) -> None:
    from mayfly.cli.stdio import write_all
    from mayfly.client.text import written_bytes
    from mayfly.model import Output

    if isinstance(event, Output):
        await write_all(1 if event.stream == "stdout" else 2, written_bytes(event))
