"""IPython as the shell, where the image has it: tracebacks, magics, `!commands` and display hooks as users know them.

IPython is no dependency of Mayfly: it is found in the image, and what is done to it here is done to one instance.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings

from mayfly.agent.inside.results import TABLE_MIME, table_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from mayfly.agent.inside.results import Reporter

__all__ = ["NotebookShell"]

_FORMATS = {"png": "png", "png2x": "png", "retina": "png", "svg": "svg", "jpg": "jpeg", "jpeg": "jpeg", "pdf": "pdf"}


class NotebookShell:
    """Runs cells in IPython's shell. Raises ImportError where there is none."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self.execution_count = 0
        shells: Any = importlib.import_module("IPython.core.interactiveshell")
        config = importlib.import_module("traitlets.config").Config()
        config.HistoryManager.enabled = False
        config.HistoryManager.hist_file = ":memory:"
        config.InteractiveShell.autoindent = False
        os.environ["IPYTHONDIR"] = f"/tmp/.ipython-{os.getuid()}"  # noqa: S108  the home directory is the user's
        shell: Any = shells.InteractiveShell.instance(config=config)
        del os.environ["IPYTHONDIR"]
        self._shell = shell
        shell.run_line_magic("colors", "nocolor")
        shell.system = shell.system_raw
        shell.ask_exit = lambda: None
        shell._showtraceback = self._traceback  # noqa: SLF001  as IPython's other front ends do
        self._shows = False
        self._show_traceback = shell.showtraceback
        shell.showtraceback = self._show_failed
        shell.displayhook.write_output_prompt = lambda: None
        shell.displayhook.finish_displayhook = lambda: None
        shell.displayhook.write_format_data = self._value
        shell.display_pub.publish = self._publish
        shell.display_pub.clear_output = lambda wait=False: None  # noqa: ARG005  what was sent stays sent
        self._format = shell.display_formatter.format
        shell.display_formatter.format = self._formatted
        warnings.filterwarnings("ignore", message="To exit: use")
        shell.configurables.append(self._inline_backend(shell))
        shell.register_magic_function(self._matplotlib, "line", "matplotlib")
        shell.register_magic_function(self._pip, "line", "pip")

    def run(self, code: str) -> bool:
        """Runs one cell; False when it raised, which has been reported then."""
        if "_oh" not in self._shell.user_ns:  # the program has cleared its names, and with them IPython's own
            self._shell.init_user_ns()
        result = self._shell.run_cell(code, store_history=True)
        self.execution_count = self._shell.execution_count - 1
        return bool(result.success)

    def _traceback(self, kind: type[BaseException], error: BaseException, lines: Sequence[str]) -> None:
        try:
            value = str(error)
        except Exception:  # noqa: BLE001  an exception may fail to show itself
            value = ""
        self._reporter.error(kind.__name__, value, "\n".join(lines), minor=self._shows)

    def _show_failed(self, error: tuple[Any, Any, Any] | None = None, *args: Any, **named: Any) -> None:
        """IPython names the error itself only where something could not be shown, which ends nothing."""
        self._shows = error is not None
        try:
            self._show_traceback(error, *args, **named)
        finally:
            self._shows = False

    def _formatted(self, thing: object, include: object = None, exclude: object = None) -> Any:
        for ask in self._reporter.special:
            bundle = ask(thing)
            if bundle is not None:
                return bundle, {}
        data, metadata = self._format(thing, include=include, exclude=exclude)
        table = table_of(thing) if data else None
        if table is not None:
            data[TABLE_MIME] = table
        return data, metadata

    def _value(self, data: Mapping[str, Any], metadata: Mapping[str, Any] | None = None) -> None:
        self._reporter.send(data, metadata, is_main=True)

    def _publish(self, data: Mapping[str, Any], metadata: Mapping[str, Any] | None = None, **_: object) -> None:
        self._reporter.send(data, metadata)

    def _inline_backend(self, shell: Any) -> Any:
        """What `%config InlineBackend.figure_formats = ['svg']` speaks to; the rest is taken and means nothing."""
        traits: Any = importlib.import_module("traitlets")
        settings = {
            name: traits.Any(None, allow_none=True).tag(config=True)
            for name in ("figure_format", "figure_formats", "close_figures", "print_figure_kwargs", "rc")
        }
        backend = type("InlineBackend", (importlib.import_module("traitlets.config").Configurable,), settings)
        made = backend(parent=shell)

        def changed(change: Mapping[str, Any]) -> None:
            asked = change["new"] or []
            names = [asked] if isinstance(asked, str) else [str(name) for name in asked]
            known = dict.fromkeys(_FORMATS[name] for name in names if name in _FORMATS)
            self._reporter.chosen_formats = list(known) or None

        made.observe(changed, ["figure_format", "figure_formats"])
        return made

    def _matplotlib(self, line: str) -> None:
        """Figures are shown anyhow; the magic is there for code that was written for notebooks."""

    def _pip(self, line: str) -> None:
        """`%pip`; what needs the network is refused, since there is none."""
        if line.split()[:1] in (["install"], ["download"]):
            error = importlib.import_module("IPython.core.error").UsageError
            raise error("packages cannot be installed: a sandbox has no network")
        self._shell.system(f"{sys.executable} -m pip {line}")
