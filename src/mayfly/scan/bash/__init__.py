"""The bash front end: a script's facts."""

from mayfly.scan.bash.frontend import bash_facts

__all__ = ["bash_facts"]
