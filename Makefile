# meltrepro: `make quickstart` and `make test` are all that a fresh machine needs; `make help` lists the rest.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROFILE ?= smoke

.PHONY: help setup quickstart test test-fast lint bench ui reproduce-paper clean lock-requirements

help:  ## List the targets.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

setup: $(VENV)/.ready  ## Create .venv from the hash-locked requirements.

$(VENV)/.ready: requirements/bootstrap.lock requirements/dev.lock pyproject.toml
	@echo "setting up $(VENV) from requirements/dev.lock"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bootstrap.lock
	$(BIN)/uv pip sync --quiet --python $(BIN)/python --compile-bytecode --require-hashes requirements/dev.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

quickstart: setup  ## Build, quantize, measure on this machine, log to MLflow.
	$(BIN)/meltrepro doctor --fix
	$(BIN)/meltrepro run specs/quickstart.yaml
	@echo "see it in a browser with: make ui"

test: setup  ## Everything: lint, unit, contract, fault and integration tests.
	$(BIN)/meltrepro doctor --fix --tests
	$(MAKE) --no-print-directory lint
	$(BIN)/python -m pytest

test-fast: setup  ## Unit and contract tests alone.
	$(BIN)/python -m pytest tests/unit tests/contract

lint: setup  ## Format, lint and types.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: setup  ## Every benchmark, one after the other; on an idle machine.
	@for file in tests/benchmarks/*.py; do echo "== $$file"; $(BIN)/python "$$file" || exit 1; done

ui: setup  ## Start the MLflow UI and print the link to the last comparison.
	$(BIN)/meltrepro ui

reproduce-paper: setup  ## What this machine can repeat of the paper (PROFILE is reserved for later).
	$(BIN)/meltrepro doctor --fix
	$(BIN)/meltrepro run specs/reproduce-paper.yaml
	@echo "see it in a browser with: make ui"

clean:  ## Stop the private engine and remove .venv and caches of this checkout; records stay.
	-[ -x $(BIN)/meltrepro ] && $(BIN)/meltrepro doctor --stop
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis dist

lock-requirements: setup  ## Resolve the requirements anew.
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --extra dev --output-file requirements/dev.lock pyproject.toml
	echo uv | $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --output-file requirements/bootstrap.lock -
