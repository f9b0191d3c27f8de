"""Size and names: modules, functions and classes that fit a head, and one export list a module."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

MODULE_LINES = 400
FUNCTION_LINES = 60
PARAMETERS = 8
PUBLIC_METHODS = 20
_EMPTY_NAMES = {"common", "helper", "helpers", "manager", "managers", "misc", "util", "utils"}
_Function = ast.FunctionDef | ast.AsyncFunctionDef


def _functions(tree: ast.AST) -> Iterator[_Function]:
    return (node for node in ast.walk(tree) if isinstance(node, _Function))


def _export_list(tree: ast.Module) -> list[str] | None:
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            found: list[str] = ast.literal_eval(node.value)
            return found
    return None


def _defined(tree: ast.Module) -> set[str]:
    """Names that the module binds at its top, also under `if TYPE_CHECKING`."""
    names: set[str] = set()
    pending: list[ast.stmt] = list(tree.body)
    while pending:
        node = pending.pop()
        if isinstance(node, (*_Function.__args__, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign):
            names |= {part.id for target in node.targets for part in ast.walk(target) if isinstance(part, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
        elif isinstance(node, (ast.If, ast.Try)):
            pending += node.body
    return names


def test_modules_have_names_that_say_something(modules: list[Any]) -> None:
    assert not [module.where for module in modules if _EMPTY_NAMES & set(module.name.split("."))]


def test_classes_have_names_that_say_something(modules: list[Any]) -> None:
    wrong = [
        f"{module.where}: {node.name}"
        for module in modules
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ClassDef) and node.name.endswith(("Manager", "Helper", "Util", "Utils"))
    ]
    assert not wrong, "\n".join(wrong)


def test_modules_are_short(modules: list[Any]) -> None:
    lengths = {module.where: len(module.text.splitlines()) for module in modules}
    assert not {where: lines for where, lines in lengths.items() if lines > MODULE_LINES}


def test_functions_are_short(modules: list[Any]) -> None:
    long = {
        f"{module.where}:{node.lineno} {node.name}": (node.end_lineno or 0) - node.lineno + 1
        for module in modules
        for node in _functions(module.tree)
        if (node.end_lineno or 0) - node.lineno + 1 > FUNCTION_LINES
    }
    assert not long


def test_functions_take_few_parameters(modules: list[Any]) -> None:
    wrong = []
    for module in modules:
        for node in _functions(module.tree):
            names = [arg.arg for arg in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            if len([name for name in names if name not in {"self", "cls"}]) > PARAMETERS and not _is_command(node):
                wrong.append(f"{module.where}:{node.lineno} {node.name}")
    assert not wrong, "\n".join(wrong)


def _is_command(node: _Function | ast.ClassDef) -> bool:
    """A click command, whose parameters are the options that the user sees."""
    return any("command" in ast.unparse(decorator) for decorator in node.decorator_list)


def test_classes_have_few_public_methods(modules: list[Any]) -> None:
    wrong = [
        f"{module.where}: {node.name}"
        for module in modules
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ClassDef)
        and len({part.name for part in node.body if isinstance(part, _Function) and not part.name.startswith("_")})
        > PUBLIC_METHODS
    ]
    assert not wrong, "\n".join(wrong)


def test_nothing_is_checked_with_assert(modules: list[Any]) -> None:
    wrong = [
        f"{module.where}:{node.lineno}"
        for module in modules
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Assert)
    ]
    assert not wrong, "\n".join(wrong)


def test_every_module_with_public_names_lists_them(modules: list[Any]) -> None:
    wrong = []
    for module in modules:
        listed = _export_list(module.tree)
        public = {
            node.name
            for node in module.tree.body
            if isinstance(node, (*_Function.__args__, ast.ClassDef)) and not node.name.startswith("_")
            if not _is_command(node)  # its group knows it
        }
        if module.name.endswith("__main__") or _is_script(module):
            public.discard("main")
        if missing := public - set(listed or ()):
            wrong.append(f"{module.where}: {', '.join(sorted(missing))}")
    assert not wrong, "\n".join(wrong)


def _is_script(module: Any) -> bool:
    return 'if __name__ == "__main__"' in module.text


def test_export_lists_are_sorted_and_name_what_is_there(modules: list[Any]) -> None:
    wrong = []
    for module in modules:
        listed = _export_list(module.tree)
        if listed is None:
            continue
        if listed != sorted(set(listed), key=_order):
            wrong.append(f"{module.where}: not sorted")
        if missing := set(listed) - _defined(module.tree) - {"__version__"}:
            wrong.append(f"{module.where}: names {', '.join(sorted(missing))}, which it does not define")
    assert not wrong, "\n".join(wrong)


def _order(name: str) -> tuple[int, str]:
    """Constants, then classes, then the rest, as the linter sorts them."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name


def test_exported_names_have_docstrings(modules: list[Any]) -> None:
    wrong = []
    for module in modules:
        listed = set(_export_list(module.tree) or ())
        if ast.get_docstring(module.tree) is None:
            wrong.append(module.where)
        for node in module.tree.body:
            if isinstance(node, (*_Function.__args__, ast.ClassDef)) and node.name in listed:
                wrong += [f"{module.where}: {name}" for name in _without_docstring(node)]
    assert not wrong, "\n".join(wrong)


def _without_docstring(node: _Function | ast.ClassDef) -> Iterator[str]:
    if ast.get_docstring(node) is None:
        yield node.name
    if isinstance(node, ast.ClassDef):
        for part in node.body:
            if not isinstance(part, _Function) or part.name.startswith("_") or _is_overload(part):
                continue
            if ast.get_docstring(part) is None:
                yield f"{node.name}.{part.name}"


def _is_overload(node: _Function) -> bool:
    """One of several signatures; the text stands with the implementation."""
    return any(ast.unparse(decorator) == "overload" for decorator in node.decorator_list)
