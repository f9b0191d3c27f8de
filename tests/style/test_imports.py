"""Imports point one way, and third-party packages are known only where they are needed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_VALUES = {"errors", "file_model", "model", "sandbox_model"}
_NODE_SIDE = {"config", "guest", "host", "images", "node", "observe", "pool", "scan", "validation", "vmm", *_VALUES}

MAY_IMPORT: dict[str, set[str]] = {
    "": {"client", *_VALUES},  # the public names, loaded when they are used
    "__main__": {"cli"},
    "errors": set(),
    "model": set(),
    "file_model": set(),
    "sandbox_model": {"file_model", "model"},
    "validation": _VALUES,
    "config": {"host.paths", "validation", *_VALUES},
    "observe": set(),
    "scan": _VALUES,
    "agent": {"guest.frames"},
    "guest": {"host", *_VALUES},
    "host": _VALUES,
    "images": {"host.locks", "host.paths", "host.process", "host.sockets", "host.sparse", *_VALUES},
    "vmm": {"guest", "host", *_VALUES},
    "pool": {"guest", "host", "images", "vmm", *_VALUES},
    "node": _NODE_SIDE,
    "server": {"node", *_NODE_SIDE},
    "client": {"config", "host", "node.bringup", "validation", *_VALUES},
    "bench": {"client", "server", "testing", *_NODE_SIDE},
    "cli": {"bench", "client", "server", *_NODE_SIDE},
    "testing": {"agent", "client", "server", *_NODE_SIDE},
}
"""Package → what of Mayfly it may import, beside itself and the version in `mayfly`."""

EXCEPTIONS = {
    ("mayfly.host.boot_host", "mayfly.bench.inside"): "or in a benchmark",
    ("mayfly.host.boot_host", "mayfly.server.inside"): "first process of the emulated host: it ends in the node",
    ("mayfly.host.emulated", "mayfly.images.store"): "the emulated host's disk is seeded from the store",
    ("mayfly.images.setup", "mayfly.vmm.versions"): "which versions may be installed is the VMM's knowledge",
}

THIRD_PARTY: dict[str, set[str]] = {
    "anyio": {"bench", "cli", "client", "guest", "host", "images", "node", "pool", "server", "testing", "vmm"},
    "click": {"cli"},
    "h11": {"client", "server", "testing", "vmm"},
    "msgspec": set(MAY_IMPORT) - {"", "__main__", "agent", "errors", "observe"},
    "rapidfuzz": {"scan"},
    "rich": {"cli"},
    "starlette": {"server"},
    "structlog": {"node", "observe", "pool", "server", "vmm"},
    "tree_sitter": {"scan"},
    "tree_sitter_bash": {"scan"},
    "tree_sitter_javascript": {"scan"},
    "tree_sitter_typescript": {"scan"},
    "uvicorn": {"server"},
    "wsproto": {"client", "server", "testing"},
}
"""Package from outside → where it may be imported. HTTP shapes live in `server`, terminals in `cli`."""


def _ours(modules: list[Any]) -> Iterator[tuple[Any, Any, str]]:
    names = {module.name for module in modules}
    for module in modules:
        for entry in module.imports():
            if entry.target.split(".")[0] != "mayfly":
                continue
            deeper = f"{entry.target}.{entry.name}"
            target = deeper if deeper in names else entry.target
            if target != "mayfly":  # only the version and `__path__` live there
                yield module, entry, target


def test_imports_point_one_way(modules: list[Any]) -> None:
    wrong = []
    for module, entry, target in _ours(modules):
        area = target.removeprefix("mayfly.")
        allowed = MAY_IMPORT[module.package]
        near = area.split(".")[0] == module.package
        named = any(area == name or area.startswith(f"{name}.") for name in allowed)
        if not (near or named or (module.name, target) in EXCEPTIONS):
            wrong.append(str(entry))
    assert not wrong, "\n".join(wrong)


def test_every_exception_is_still_needed(modules: list[Any]) -> None:
    used = {(module.name, target) for module, _, target in _ours(modules)}
    assert set(EXCEPTIONS) <= used


def test_third_party_packages_stay_where_they_are_needed(modules: list[Any]) -> None:
    wrong = []
    for module in modules:
        for entry in module.imports():
            top = entry.target.split(".")[0]
            if top in sys.stdlib_module_names or top in {"mayfly", "sitecustomize", "preload"}:
                continue
            if module.package not in THIRD_PARTY.get(top, set()):
                wrong.append(str(entry))
    assert not wrong, "\n".join(wrong)


def test_the_agent_and_the_frames_import_nothing_third_party(modules: list[Any]) -> None:
    inside = [module for module in modules if module.package == "agent" or module.name == "mayfly.guest.frames"]
    assert len(inside) > 1
    wrong = [
        str(entry)
        for module in inside
        for entry in module.imports()
        if entry.target.split(".")[0] not in sys.stdlib_module_names
        and entry.target not in {"sitecustomize", "preload"}  # by the names that the runner imports them by
        and not entry.target.startswith("mayfly.agent")
        and entry.target not in {"mayfly.agent", "mayfly.guest.frames"}
    ]
    assert not wrong, "\n".join(wrong)


def test_imports_between_modules_take_exported_names_only(modules: list[Any]) -> None:
    exported = {module.name: _exported(module) for module in modules}
    wrong = [
        str(entry)
        for module, entry, target in _ours(modules)
        if entry.name is not None and target == entry.target and entry.name not in exported.get(target, set())
        if not entry.for_types  # aliases of types exist for the type checker only
    ]
    assert not wrong, "\n".join(wrong)


def _exported(module: Any) -> set[str]:
    import ast

    for node in module.tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return set(ast.literal_eval(node.value))
    return set()
