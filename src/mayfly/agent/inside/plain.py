"""The shell for images without IPython: state, the last expression's value, `await` at the top level, tracebacks."""

from __future__ import annotations

import ast
import builtins
import inspect
import linecache
import sys
import types

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from types import CodeType

    from mayfly.agent.inside.results import Reporter

__all__ = ["PlainShell"]


class PlainShell:
    """Runs cells in one module named `__main__`."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self.execution_count = 0
        self._module = types.ModuleType("__main__")
        sys.modules["__main__"] = self._module
        self._names = self._module.__dict__
        self._names["__builtins__"] = builtins
        vars(builtins)["display"] = self._display  # as in IPython, it is there without an import
        self._loop: asyncio.AbstractEventLoop | None = None

    def _display(self, *things: object) -> None:
        for thing in things:
            self._reporter.show(thing)

    def run(self, code: str) -> bool:
        """Runs one cell; False when it raised, which has been reported then."""
        self.execution_count += 1
        name = f"<cell {self.execution_count}>"
        linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
        try:
            tree = compile(code, name, "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
            if tree.body:
                self._evaluate(_compiled(tree, name, "exec"))
            if isinstance(last, ast.Expr):
                value = self._evaluate(_compiled(ast.Expression(last.value), name, "eval"))
                if value is not None:
                    self._names["_"] = value
                    self._reporter.show(value, is_main=True)
        except BaseException as error:  # noqa: BLE001  it is the program's, whatever it is
            self._reporter.exception(error)
            return False
        return True

    def _evaluate(self, code: CodeType) -> object:
        value = eval(code, self._names)  # noqa: S307  running code is what this is for
        if not code.co_flags & inspect.CO_COROUTINE:
            return value
        import asyncio

        if self._loop is None or self._loop.is_closed():
            self._loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self._loop)
        result: object = self._loop.run_until_complete(value)
        return result


def _compiled(tree: ast.AST, name: str, mode: str) -> CodeType:
    code: CodeType = compile(tree, name, mode, ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)  # type: ignore[call-overload]
    return code
