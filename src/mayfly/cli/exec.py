"""`mayfly exec`: a command, or code, in a sandbox that runs; streams and exit code passed through."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import click

from mayfly.cli import completion
from mayfly.cli.sandboxes import node_option, opened, waited

if TYPE_CHECKING:
    from mayfly.client.commands import AsyncCommand
    from mayfly.client.sandbox import AsyncSandbox

__all__ = ["exec"]

_CODE_EXIT = {"succeeded": 0, "failed": 1, "timeout": 124, "interrupted": 130, "denied": 126}


@click.command(
    "exec",
    short_help="Run a command or code in a sandbox.",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.option("-c", "code", metavar="CODE", help="Code for the sandbox's context, instead of a command.")
@click.option(
    "--lang",
    metavar="python|bash|javascript",
    help="Language of CODE; by default the sandbox's.",
    shell_complete=completion.words("python", "bash", "javascript"),
)
@click.option("--cwd", metavar="PATH", help="Directory to run the command in.")
@click.option("--env", "env", multiple=True, metavar="NAME=VALUE", help="Environment variable; may be repeated.")
@click.option("--timeout", type=float, metavar="SECONDS", help="Stop it after this long.")
@node_option
@click.argument("sandbox_id", metavar="ID")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[COMMAND [ARGS…]]")
def exec(sandbox_id: str, words: tuple[str, ...], **options: Any) -> int:  # noqa: A001 - the command's name
    """Run COMMAND, or CODE, in the sandbox ID.

    Standard input goes to the command, its output comes as it is written, and its exit code is the exit code. CODE
    runs in the sandbox's context, where its variables stay; its last value is printed, and the exit code is 1 when it
    raised.
    """
    words = words[1:] if words[:1] == ("--",) else words  # as after the ID in other programs of this kind
    if (options["code"] is None) == (not words):
        raise click.UsageError("say what to run: COMMAND and its ARGS, or -c CODE")
    env = {}
    for pair in options["env"]:
        name, found, value = pair.partition("=")
        if not found:
            raise click.UsageError(f"--env must be NAME=VALUE, not {pair!r}")
        env[name] = value
    return waited(_run(sandbox_id, words, env, options))


async def _run(sandbox_id: str, words: tuple[str, ...], env: dict[str, str], options: dict[str, Any]) -> int:
    async with opened(sandbox_id, options["node"]) as sandbox:
        if options["code"] is not None:
            return await _run_code(sandbox, env, options)
        from mayfly.cli.stdio import has_input

        given = {"cwd": options["cwd"], "envs": env, "timeout_s": options["timeout"]}
        command = await sandbox.commands.run(
            list(words),
            background=True,
            stdin=has_input(),
            **given,
        )
        return await _followed(command)


async def _followed(command: AsyncCommand) -> int:
    import anyio

    from mayfly.cli.stdio import has_input, write_all
    from mayfly.client.text import written_bytes
    from mayfly.host.tasks import single_error
    from mayfly.sandbox_model import CommandEnded, CommandOutput

    exit_code = 125
    try:
        with single_error():
            async with anyio.create_task_group() as tasks, contextlib.aclosing(command.events()) as events:
                if has_input():
                    tasks.start_soon(_feed, command)
                async for event in events:
                    if isinstance(event, CommandOutput):
                        await write_all(1 if event.stream == "stdout" else 2, written_bytes(event))
                    elif isinstance(event, CommandEnded):
                        exit_code = event.end.exit_code
                tasks.cancel_scope.cancel()
    except BaseException:
        await _end(command)
        raise
    return exit_code


async def _end(command: AsyncCommand) -> None:
    import anyio

    from mayfly.errors import MayflyError

    with anyio.move_on_after(5, shield=True), contextlib.suppress(MayflyError):
        await command.kill()


async def _feed(command: AsyncCommand) -> None:
    from mayfly.cli.stdio import input_chunks
    from mayfly.errors import NotFoundError

    with contextlib.suppress(NotFoundError):  # it ended before it took all of its input
        async for chunk in input_chunks():
            await command.send_stdin(chunk)
        await command.close_stdin()


async def _run_code(sandbox: AsyncSandbox, env: dict[str, str], options: dict[str, Any]) -> int:
    from mayfly.cli.failure import paint, safe
    from mayfly.cli.stdio import write_all

    given = {"envs": env, "timeout_s": options["timeout"], "language": options["lang"]}
    execution = await sandbox.run_code(
        options["code"],
        on_stdout=lambda text: write_all(1, text.encode()),
        on_stderr=lambda text: write_all(2, text.encode()),
        **{name: value for name, value in given.items() if value},
    )
    for result in execution.results:
        await write_all(1, f"{result}\n".encode())
    if execution.error is not None:
        await write_all(2, f"{execution.error.traceback.rstrip()}\n".encode())
    if execution.status not in {"succeeded", "failed"}:
        said = {"denied": "the scan refused this code; nothing was run"}.get(execution.status, execution.status)
        reason = f": {execution.failure.message}" if execution.failure else ""
        click.echo(f"{paint('mayfly:', fg='yellow')} {safe(said.replace('_', ' ') + reason)}", err=True)
    return _CODE_EXIT.get(execution.status, 125)
