"""What command lines do: one table for bash, for Python's subprocess and for JavaScript's child_process."""

from mayfly.scan.commands.run import run_command

__all__ = ["run_command"]
