"""The JavaScript and TypeScript front end: a program's facts."""

from mayfly.scan.javascript.frontend import javascript_facts

__all__ = ["javascript_facts"]
