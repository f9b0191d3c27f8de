"""The Python front end: bytes to facts."""

from mayfly.scan.python.frontend import python_facts

__all__ = ["python_facts"]
