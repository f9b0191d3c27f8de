"""`mayfly scan`: the verdict on programs, without running them and without a node."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import click

from mayfly.cli import completion
from mayfly.cli.failure import paint, safe

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mayfly.model import Finding, Verdict
    from mayfly.scan import Manifest, Policy, ScanLanguage

    Layer = Literal["guarddog", "hexora"]

__all__ = ["scan"]

_LANGUAGES: dict[str, ScanLanguage] = {
    ".py": "python",
    ".pyw": "python",
    ".ipynb": "python",
    ".sh": "bash",
    ".bash": "bash",
    ".js": "javascript",
    ".mjs": "javascript",
    ".cjs": "javascript",
    ".jsx": "javascript",
    ".ts": "typescript",
    ".mts": "typescript",
    ".cts": "typescript",
    ".tsx": "typescript",
}
_SHEBANGS: dict[str, ScanLanguage] = {"python": "python", "bash": "bash", "sh": "bash", "node": "javascript"}
_EXIT = {"allow": 0, "review": 1, "deny": 2, "unparseable": 3}
_COLOURS = {"low": "cyan", "medium": "yellow", "high": "red", "critical": "red"}
_VERDICT_COLOURS = {"allow": "green", "review": "yellow", "deny": "red", "unparseable": "red"}
_MAX_FILES = 10_000
_MAX_NOTEBOOK_BYTES = 16 * 1024 * 1024
_LINE_CHARS = 110
_PIPES_OF_SHELLS = (Path("/dev/fd"), Path("/proc/self/fd"))
_FINDING_FIELDS = ("rule", "severity", "confidence", "cwe", "message", "line", "column", "capabilities")


class _Source(NamedTuple):
    """A program to look at, or why it could not be read."""

    name: str
    data: bytes
    lang: ScanLanguage
    problem: str = ""

    @property
    def lines(self) -> list[bytes]:
        """The lines that findings count."""
        from mayfly.scan.source import lines_of

        return lines_of(self.data, self.lang)


@click.command(short_help="Judge a program without running it.")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, shell_complete=completion.files)
@click.option(
    "--lang", type=click.Choice(["python", "bash", "javascript", "typescript"]), help="Instead of the name's."
)
@click.option("--policy", metavar="NAME|FILE", default="default", help="default, strict, research, or a TOML file.")
@click.option("--manifest", metavar="FILE", help="The image's manifest.json, to check imports against.")
@click.option(
    "--layer",
    "layers",
    type=click.Choice(["guarddog", "hexora"]),
    multiple=True,
    help="Ask another scanner too, where it is installed.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, or an array for several files.")
@click.option("--sarif", "as_sarif", is_flag=True, help="Print SARIF 2.1.0.")
def scan(
    *,
    files: tuple[str, ...],
    lang: ScanLanguage | None,
    policy: str,
    manifest: str | None,
    layers: tuple[Layer, ...],
    as_json: bool,
    as_sarif: bool,
) -> int:
    """Look at programs, directories of programs, or standard input (-), and say what they would do.

    Exit code: 0 allow, 1 review, 2 deny, 3 not to be parsed or read; of several files, the highest.
    """
    if as_json and as_sarif:
        raise click.UsageError("--json and --sarif are two forms of the same answer; name one")
    chosen = _with_layers(_policy(policy), layers)
    held = _manifest(manifest)
    sources = [source for name in files for source in _sources(name, lang)]
    if not sources:
        below = ", ".join(safe(name) for name in files)
        raise click.UsageError(f"there is no program below {below}: no file's name ends in {', '.join(_LANGUAGES)}")
    verdicts = _judge(sources, chosen, held)
    pairs = [(source.name, verdict) for source, verdict in zip(sources, verdicts, strict=True)]
    if as_sarif:
        from mayfly.scan.sarif import sarif

        _print_json(sarif([(s.name, verdict, s.lines) for s, verdict in zip(sources, verdicts, strict=True)]))
    elif as_json:
        many = len(files) > 1 or Path(files[0]).is_dir()
        _print_json(
            [{"file": _printable(name), **_plain(verdict)} for name, verdict in pairs] if many else _plain(pairs[0][1])
        )
    else:
        for source, verdict in zip(sources, verdicts, strict=True):
            click.echo("\n".join(_report(source, verdict)))
        if len(verdicts) > 1:
            counts = {kind: sum(verdict.verdict == kind for verdict in verdicts) for kind in _EXIT}
            click.echo(f"{len(verdicts)} programs: " + ", ".join(f"{n} {kind}" for kind, n in counts.items() if n))
    return max(_EXIT[verdict.verdict] for verdict in verdicts)


def _policy(name: str) -> Policy:
    from mayfly.scan import builtin_policy, parse_policy, policy_names

    if name not in policy_names() and not name.endswith(".toml") and "/" not in name and Path(name).is_file():
        raise click.UsageError(f"no policy {name!r}; the file of that name is ./{name}")
    if name in policy_names() or not (name.endswith(".toml") or "/" in name):
        return builtin_policy(name)
    return parse_policy(_read(Path(name), 256 * 1024))


def _with_layers(policy: Policy, layers: tuple[Layer, ...]) -> Policy:
    """The policy that asks these layers besides its own."""
    import msgspec

    return msgspec.structs.replace(policy, layers=tuple(sorted({*policy.layers, *layers}))) if layers else policy


def _manifest(name: str | None) -> Manifest | None:
    from mayfly.scan import parse_manifest

    return parse_manifest(_read(Path(name), 4 * 1024 * 1024)) if name is not None else None


def _read(path: Path, limit: int) -> bytes:
    """At most `limit` + 1 bytes of a file; click.UsageError in one sentence.

    A pipe that the shell has made (`<(...)`) has a name below /dev/fd; any other pipe, and a device, might never end.
    """
    try:
        # Opening a pipe waits for a writer unless told not to.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            if stat.S_ISFIFO(mode) and path.parent in _PIPES_OF_SHELLS:
                os.set_blocking(stream.fileno(), True)
            elif not stat.S_ISREG(mode):
                raise click.UsageError(f"cannot read {path}: not a regular file")
            return stream.read(limit + 1)
    except (OSError, ValueError) as error:
        raise click.UsageError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None


def _sources(name: str, lang: ScanLanguage | None) -> Iterator[_Source]:
    """The programs that an argument names."""
    from mayfly.model import CODE_MAX_BYTES

    if not name:
        raise click.UsageError("a file's name is empty; standard input is -")
    if name == "-":
        data = sys.stdin.buffer.read(CODE_MAX_BYTES + 1)
        yield _of_language("standard input", data, lang or _by_first_line(data), "")
    elif Path(name).is_dir():
        yield from _below(Path(name), lang)
    else:
        yield _one(Path(name), lang)


def _below(top: Path, lang: ScanLanguage | None) -> Iterator[_Source]:
    """Every program below a directory, in order; links are not followed, hidden directories left out.

    A directory that cannot be listed comes last: what it holds was not judged.
    """
    count = 0
    closed: list[OSError] = []
    for folder, folders, names in os.walk(top, onerror=closed.append, followlinks=False):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__pycache__")
        for name in sorted(names):
            path = Path(folder) / name
            if path.suffix.lower() not in _LANGUAGES:
                continue
            try:
                mode = path.lstat().st_mode
            except OSError:
                continue
            if stat.S_ISREG(mode):
                count += 1
                if count > _MAX_FILES:
                    raise click.UsageError(f"{top} holds more than {_MAX_FILES:,} programs; name fewer")
                yield _one(path, lang)
    for error in closed:
        path = Path(error.filename)
        yield _Source(str(path), b"", "python", problem=f"cannot list {path}: {error.strerror}")


def _one(path: Path, lang: ScanLanguage | None) -> _Source:
    """One file, read once and within bounds: what changes afterwards is not what was judged."""
    from mayfly.model import CODE_MAX_BYTES

    notebook = path.suffix.lower() == ".ipynb"
    try:
        data = _read(path, _MAX_NOTEBOOK_BYTES if notebook else CODE_MAX_BYTES)
    except click.UsageError as error:
        return _Source(str(path), b"", lang or "python", problem=error.message)
    if notebook:
        from mayfly.scan.notebook import notebook_source

        source = notebook_source(data)
        if source is None:
            return _Source(str(path), b"", "python", problem=f"{path} is not a notebook")
        return _Source(str(path), source, "python")
    found = lang or _LANGUAGES.get(path.suffix.lower()) or _by_first_line(data)
    return _of_language(str(path), data, found, "" if path.name.startswith(".") else path.suffix)


def _of_language(name: str, data: bytes, lang: ScanLanguage | None, suffix: str) -> _Source:
    """The program; Python where neither an ending nor a first line speaks of another language."""
    if lang is None and (suffix or data.startswith(b"#!")):
        said = f"nothing says that {name} is in a language that can be scanned; --lang says which"
        return _Source(name, data, "python", problem=said)
    return _Source(name, data, lang or "python")


def _by_first_line(data: bytes) -> ScanLanguage | None:
    first = data[:256].split(b"\n", 1)[0].decode("utf-8", "replace")
    if not first.startswith("#!"):
        return None
    return next((lang for word, lang in _SHEBANGS.items() if word in first), None)


def _judge(sources: Sequence[_Source], policy: Policy, manifest: Manifest | None) -> list[Verdict]:
    """The verdicts, from limited worker processes: a file may be made to exhaust a parser."""
    import anyio

    from mayfly.node.scanner import open_scanner
    from mayfly.observe.log import configure_log
    from mayfly.scan import unparseable

    configure_log()  # to standard error: standard output is for verdicts
    verdicts: list[Verdict] = [unparseable(source.problem, kind="read") for source in sources]
    left = iter([number for number, source in enumerate(sources) if not source.problem])

    async def work() -> None:
        workers = 2 if len(sources) > 20 else 1
        async with open_scanner(workers=workers) as scanner, anyio.create_task_group() as group:

            async def take() -> None:
                for number in left:
                    source = sources[number]
                    verdicts[number] = await scanner.scan(
                        source.data, source.lang, policy, manifest, file_name=_printable(source.name)
                    )

            for _ in range(workers):
                group.start_soon(take)

    anyio.run(work)
    return verdicts


def _plain(verdict: Verdict) -> dict[str, Any]:
    """Every field, also those that hold their default."""
    import msgspec

    plain: dict[str, Any] = {name: msgspec.to_builtins(getattr(verdict, name)) for name in verdict.__struct_fields__}
    plain["findings"] = [
        {name: msgspec.to_builtins(getattr(finding, name)) for name in _FINDING_FIELDS} for finding in verdict.findings
    ]
    return plain


def _printable(name: str) -> str:
    """A file's name as JSON can hold it: bytes that are not UTF-8 are replaced."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _print_json(value: object) -> None:
    import msgspec

    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2))


def _report(source: _Source, verdict: Verdict) -> list[str]:
    """A verdict for people: each finding with its line underlined."""
    word = paint(verdict.verdict, fg=_VERDICT_COLOURS[verdict.verdict], bold=True, err=False)
    needs = f"; it seems to need: {', '.join(verdict.capabilities)}" if verdict.capabilities else ""
    out = [f"{safe(source.name)}: {word}{needs}"]
    lines = source.lines if verdict.findings else []
    for finding in verdict.findings:
        out += _finding(finding, lines)
    return out


def _finding(finding: Finding, lines: list[bytes]) -> list[str]:
    severity = paint(finding.severity, fg=_COLOURS[finding.severity], bold=True, err=False)
    cwe = f" [{finding.cwe}]" if finding.cwe else ""
    place = ":".join(str(number) for number in (finding.line, finding.column) if number)
    out = [f"  {place}{' ' if place else ''}{severity} {safe(finding.rule)} {safe(finding.message)}{cwe}"]
    if 0 < finding.line <= len(lines):
        raw = lines[finding.line - 1]
        # The column counts bytes of UTF-8 from 1, as Python's parser does from 0.
        before = raw[: max(finding.column - 1, 0)].decode("utf-8", "replace")
        after = raw[max(finding.column - 1, 0) :].decode("utf-8", "replace")
        margin = max(0, len(before) - _LINE_CHARS // 2)
        head = safe(before[margin:].expandtabs(1))
        rest = safe(after.expandtabs(1))[: max(_LINE_CHARS - len(head), 1)].rstrip()
        number = f"{finding.line:>7} | "
        out += [number + head + rest, " " * (len(number) + len(head)) + "~" * max(len(rest), 1)]
    return out
