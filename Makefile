# `make run` and `make test` do everything that a fresh machine needs; both skip what is there.
SHELL := /bin/bash
.DEFAULT_GOAL := help
MAYFLY := .venv/bin/mayfly
# Tests in the emulated host run in one process, all others beside them; `PYTEST_ARGS='-n 0'` runs one after another.
PYTEST := .venv/bin/python -m pytest -n 2 --dist loadgroup

.PHONY: help run test check unit clean bootstrap bootstrap-dev

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

bootstrap:
	@scripts/bootstrap.sh

bootstrap-dev:
	@scripts/bootstrap.sh dev

run: bootstrap  ## set up everything, then run examples/fibonacci.py in a microVM
	@$(MAYFLY) setup
	@$(MAYFLY) run --timings examples/fibonacci.py

test: bootstrap-dev  ## set up everything, then the whole test suite
	@$(MAYFLY) setup --image node
	@$(PYTEST) $(PYTEST_ARGS)

unit: bootstrap-dev  ## the tests that need no microVM
	@$(PYTEST) tests/unit tests/integration tests/style tests/typing $(PYTEST_ARGS)

check: bootstrap-dev  ## lint and types
	@.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy

clean:  ## remove what was built here; the state directory stays (see `mayfly doctor`)
	rm -rf .venv build .pytest_cache .mypy_cache .ruff_cache .hypothesis
