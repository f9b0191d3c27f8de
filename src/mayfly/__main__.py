"""`python -m mayfly` is the command line."""

from __future__ import annotations

from mayfly.cli import main

if __name__ == "__main__":
    main()
