# meltrepro: `make quickstart` and `make test` are all that a fresh machine needs; `make help` lists the rest.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# More options of meltrepro run for the quickstart, such as --wait where others measure on this machine.
RUN_FLAGS ?=
# How much of the paper to repeat: smoke, laptop or full (docs/reproduce.md).
PROFILE ?= smoke
# More options of meltrepro study, such as --drop-models where the disk is small.
STUDY_FLAGS ?=
# Tests wait about as much as they compute. A file is one worker's, and begins in the order of pyproject.toml.
WORKERS = $(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder
# Seconds for each kind of input, and which kind (docs/security.md).
SECONDS ?= 60
KIND ?= all
# What is mutated, and how many of its mutants, drawn with SEED; 0: all of them (docs/architecture.md).
PART ?= stats
SAMPLE ?= 0
SEED ?= 0
# Where the documentation goes as a site.
SITE ?= site
# The interpreter that most users have: of an older version than this one, it may lack what this one knows.
SYSTEM_PYTHON := /usr/bin/python3
RESOLVE = $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --no-annotate

# Tests start a thousand programs: what one of them has compiled is there for the next.
unexport PYTHONDONTWRITEBYTECODE

# uv trusts whom the system trusts, as Debian's pip does: a proxy may have certificates of its own.
export UV_SYSTEM_CERTS := 1

.PHONY: help setup quickstart test test-fast test-costly test-debian test-python lint bench fuzz mutants docs ui release reproduce-paper ios clean lock-requirements lock-lab

# $(call phase,name,command): run one command under a heading, say how long it took, keep its exit status.
define phase
@echo "== $(1)"; started=$$SECONDS; $(2); status=$$?; \
echo "== $(1): $$((SECONDS - started)) s"; exit $$status
endef

help:  ## List the targets.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

setup: $(VENV)/.ready  ## Create .venv from the hash-locked requirements.

$(VENV)/.ready: requirements/bootstrap.lock requirements/dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "$(PYTHON) is missing or older than 3.11; name another: make PYTHON=python3.12 setup"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' \
		|| { echo "$(PYTHON) cannot make virtual environments; on Debian: apt-get install python3-venv"; exit 1; }
	$(call phase,environment in $(VENV),$(install))

# Python compiles what it runs only where it may write beside it; compiled here, every start of the program is quick.
define install
set -e; \
$(PYTHON) -m venv $(VENV); \
$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bootstrap.lock; \
$(BIN)/uv pip sync --quiet --python $(BIN)/python --compile-bytecode --require-hashes requirements/dev.lock; \
$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .; \
$(BIN)/python -m compileall -q meltrepro; \
touch $@
endef

quickstart: setup  ## Build, quantize, measure on this machine, log to MLflow.
	$(BIN)/meltrepro doctor --fix
	$(BIN)/meltrepro run specs/quickstart.yaml $(RUN_FLAGS)
	@echo "in this folder \`make ui\` is the first of these; \`source $(BIN)/activate\` makes the program plain \`meltrepro\`"

$(VENV)/.ios: requirements/ios.lock $(VENV)/.ready
	$(call phase,clients of iPhones in $(VENV),$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode \
		--require-hashes -r requirements/ios.lock && touch $@)

ios: $(VENV)/.ios  ## Install what iPhones need (GPL-3), from its hash-locked requirements.

test: setup $(VENV)/.ios $(VENV)/docs/.ready  ## Everything: lint, unit, contract, fault and integration tests.
	$(call phase,doctor,$(BIN)/meltrepro doctor --fix --tests)
	$(call phase,lint,$(MAKE) --no-print-directory lint)
	$(call phase,tests,$(WORKERS) -m "not machine and not costly")
	$(call phase,tests that need the machine,$(BIN)/python -m pytest -m "machine and not costly")

test-costly: setup  ## What takes longer than all other tests where nothing is built yet: llama.cpp with Vulkan on a software device, programs for phones.
	$(call phase,costly tests,$(BIN)/python -m pytest -m costly tests/integration)

test-fast: setup  ## Unit and contract tests alone, in a minute: with few examples, without the slow ones.
	QUICK=1 $(WORKERS) -m "not slow" tests/unit tests/contract

# Of what needs the machine, the tests that build and measure with both engines; the others differ by device and metric.
test-python: setup  ## What depends on the interpreter: unit tests, faults of builds, builds and trials.
	$(call phase,unit tests and faults of builds in $(VENV),$(WORKERS) tests/unit tests/fault/test_build_faults.py)
	$(call phase,builds and trials in $(VENV),$(BIN)/python -m pytest -m machine \
		$(addprefix tests/integration/test_,engines.py quickstart.py sandboxed_trials.py))

test-debian: setup  ## The same (test-python) with Debian's own Python, where that is another version.
	@version=$$($(BIN)/python -c 'import platform; print(platform.python_version())'); \
	if $(SYSTEM_PYTHON) -c "import platform, sys; sys.exit(sys.version_info < (3, 11) or platform.python_version() == '$$version')" 2>/dev/null; \
	then $(MAKE) --no-print-directory PYTHON=$(SYSTEM_PYTHON) VENV=$(VENV)-debian test-python; \
	else echo "== tests with $(SYSTEM_PYTHON): left out, it is missing, older than 3.11 or $$version as well"; fi

# In a folder of its own beside the environment. Where it has no wheel inputs are changed at random, which finds less.
fuzz: setup  ## Change every input of strangers at random, for SECONDS (60) each; KIND names one.
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --target $(VENV)/fuzz --require-hashes --no-deps --only-binary :all: \
		-r requirements/fuzz.lock || echo "atheris has no wheel for this interpreter and machine (docs/security.md)"
	PYTHONPATH=$(VENV)/fuzz nice $(BIN)/python -m tests.fuzz $(KIND) $(SECONDS)

# In a folder of its own, as its packages are nobody else's. Material's advertisement is no warning about our pages.
$(VENV)/docs/.ready: requirements/docs.lock $(VENV)/.ready
	$(call phase,site generator in $(VENV)/docs,$(BIN)/uv pip install --quiet --python $(BIN)/python --target $(VENV)/docs \
		--require-hashes --no-deps -r requirements/docs.lock && touch $@)

docs: $(VENV)/docs/.ready  ## Build the documentation as a site in SITE (site); a broken link or anchor is an error.
	NO_MKDOCS_2_WARNING=1 PYTHONPATH=$(VENV)/docs $(BIN)/python -m mkdocs build --strict --site-dir $(abspath $(SITE))

# In a folder of its own, like the site generator. A run goes on where the last one stopped.
mutants: setup  ## Change the code of PART (stats) bit by bit: which changes does no test notice? SAMPLE draws a few.
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --target $(VENV)/mutants --require-hashes --no-deps \
		-r requirements/mutants.lock
	PYTHONPATH=$(abspath $(VENV)/mutants) nice -n 10 $(BIN)/python -m tests.mutants $(PART) --sample $(SAMPLE) --seed $(SEED)

lint: setup  ## Format, lint and types.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: setup  ## Every benchmark, one after the other, into docs/benchmarks.md; on an idle machine.
	$(BIN)/python -m tests.benchmarks

ui: setup  ## Start the MLflow UI and print the link to the last comparison.
	$(BIN)/meltrepro ui

release: setup  ## Build wheel and source archive of the last commit twice, compare, add SBOM and SHA256SUMS: dist/.
	$(BIN)/python -m tests.release dist

reproduce-paper: setup  ## Repeat the paper on what is at hand: PROFILE=smoke (the default), laptop or full.
	$(BIN)/meltrepro doctor --fix
	$(BIN)/meltrepro study specs/paper/$(PROFILE) --name paper-$(PROFILE) $(STUDY_FLAGS)

clean:  ## Stop the private engine; remove .venv and the caches of this checkout. Store and records stay.
	-@if [ -x $(BIN)/meltrepro ]; then $(BIN)/meltrepro doctor --stop; fi
	rm -rf $(VENV) $(VENV)-debian .pytest_cache .mypy_cache .ruff_cache .hypothesis .fuzz .mutants dist site
	find meltrepro tests -name __pycache__ -prune -exec rm -rf {} +

lock-lab: setup  ## Pin today's packages of the lab's virtual devices (images/*/packages*.json).
	$(BIN)/python -m meltrepro.lab.pins

lock-requirements: setup  ## Resolve the requirements anew.
	$(RESOLVE) --extra dev --output-file requirements/dev.lock pyproject.toml
	echo uv | $(RESOLVE) --output-file requirements/bootstrap.lock -
	$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["ios"])' \
		| $(RESOLVE) --constraint requirements/dev.lock --output-file requirements/ios.lock -
	echo atheris | $(RESOLVE) --output-file requirements/fuzz.lock -
	echo mkdocs-material | $(RESOLVE) --output-file requirements/docs.lock -
	echo mutmut | $(RESOLVE) --constraint requirements/dev.lock --output-file requirements/mutants.lock -
