"""What must not happen where: processes, files and sockets in the pure parts, and anything at import."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_STARTERS = {
    "subprocess": {"Popen", "call", "check_call", "check_output", "getoutput", "getstatusoutput", "run"},
    "os": {"fork", "forkpty", "popen", "posix_spawn", "posix_spawnp", "system"},
    "asyncio": {"create_subprocess_exec", "create_subprocess_shell"},
    "anyio": {"open_process", "run_process"},
}
_OS_FAMILIES = ("exec", "spawn")

MAY_START_PROCESSES = {
    "host": "the one place that starts what runs on this machine",
    "images": "runs the tools that make images",
    "agent": "runs the user's program, inside the guest",
    "testing": "its machines are plain processes on purpose",
}
MAY_CALL_SPAWN = {
    "bench": "the node that is measured, QEMU, and the program that a guest's is compared with",
    "vmm": "the jailer",
    "testing": "the fake VMM",
    "mayfly.node.scanner": "the scan's workers: a parser that a program crashes or blows up must not be the node",
}
"""Who may use `mayfly.host.process.spawn`, by package or module."""

_NO_IO = {
    "asyncio", "anyio", "glob", "http", "multiprocessing", "os", "pathlib", "shutil", "signal", "socket", "sqlite3",
    "ssl", "subprocess", "tempfile", "threading", "urllib",
}  # fmt: skip
_IO_EXCEPTIONS = {
    "mayfly.scan.layers.guarddog": "reads the rules of the package that is installed",
    "mayfly.scan.layers.hexora": "hands the program over through a pipe",
    "mayfly.scan.worker": "the process around the scan: reads requests from descriptor 0, limits itself",
}
_READERS = {"glob", "iterdir", "listdir", "open", "read", "read_bytes", "read_text", "rglob", "scandir", "stat", "walk"}


def _calls(tree: ast.AST) -> Iterator[tuple[ast.Call, str, str]]:
    """Each call as (node, what the attribute is taken from, name)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value
            yield node, owner.id if isinstance(owner, ast.Name) else "", node.func.attr
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node, "", node.func.id


def _starts(owner: str, name: str) -> bool:
    return name in _STARTERS.get(owner, ()) or (owner == "os" and name.startswith(_OS_FAMILIES))


def test_only_host_images_and_agent_start_processes(modules: list[Any]) -> None:
    wrong = [
        f"{module.where}:{call.lineno} calls {owner}.{name}"
        for module in modules
        if module.package not in MAY_START_PROCESSES
        for call, owner, name in _calls(module.tree)
        if _starts(owner, name)
    ]
    wrong += [
        str(entry)
        for module in modules
        if module.package not in MAY_START_PROCESSES
        for entry in module.imports()
        if entry.target.split(".")[0] == "multiprocessing" or (entry.name and _starts(entry.target, entry.name))
    ]
    assert not wrong, "\n".join(wrong)


def test_spawn_is_used_by_the_vmm_and_listed_others_only(modules: list[Any]) -> None:
    users = {
        module.name
        for module in modules
        for entry in module.imports()
        if entry.target == "mayfly.host.process" and entry.name == "spawn"
    }
    listed = {name for name in users if name in MAY_CALL_SPAWN or name.split(".")[1] in MAY_CALL_SPAWN}
    assert users == listed


def test_scan_and_frames_do_no_io(modules: list[Any]) -> None:
    pure = [
        module
        for module in modules
        if (module.package == "scan" or module.name == "mayfly.guest.frames") and module.name not in _IO_EXCEPTIONS
    ]
    assert len(pure) > 1
    wrong = [
        str(entry)
        for module in pure
        for entry in module.imports()
        if entry.target.split(".")[0] in _NO_IO and entry.target != "urllib.parse" and not entry.for_types
    ]
    wrong += [
        f"{module.where}:{call.lineno} calls {name}"
        for module in pure
        for call, owner, name in _calls(module.tree)
        if not owner and isinstance(call.func, ast.Name) and name in {"open", "print", "input", "eval", "exec"}
    ]
    assert not wrong, "\n".join(wrong)


def _run_at_import(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run when the module is imported: all but the bodies of functions."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for part in (*child.decorator_list, *child.args.defaults, *filter(None, child.args.kw_defaults)):
                yield part
                yield from ast.walk(part)
        elif isinstance(child, ast.Lambda) or _is_main_guard(child):
            continue
        else:
            yield child
            yield from _run_at_import(child)


def _is_main_guard(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"


def test_no_module_has_code_that_reads_files_at_import(modules: list[Any]) -> None:
    wrong = [
        f"{module.where}:{node.lineno} calls {ast.unparse(node.func)}"
        for module in modules
        for node in _run_at_import(module.tree)
        if isinstance(node, ast.Call)
        and (node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")) in _READERS
    ]
    assert not wrong, "\n".join(wrong)


_WATCH = """
import importlib, sys

root, names = sys.argv[1], sys.argv[2:]
seen = []

def blamed():
    frame = sys._getframe(2)
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):  # it reads modules
        if frame.f_code.co_filename.startswith(root):
            return True
        frame = frame.f_back
    return False

def hook(event, args):
    if event in ("open", "os.listdir", "os.scandir", "subprocess.Popen", "socket.connect", "os.fork") and blamed():
        seen.append(f"{event} {args[0]!r}")

sys.addaudithook(hook)
for name in names:
    importlib.import_module(name)
    if seen:
        sys.exit(f"{name}: {seen[0]}")
"""


def test_importing_every_module_opens_no_file_and_starts_nothing(modules: list[Any], root: Path) -> None:
    names = [module.name for module in modules if module.name != "mayfly.agent.sitecustomize"]
    done = subprocess.run(
        [sys.executable, "-c", _WATCH, str(root / "src" / "mayfly"), *names],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PATH": os.environ.get("PATH", "")},
    )
    assert (done.returncode, done.stderr) == (0, "")
