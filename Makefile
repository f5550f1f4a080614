# make demo | make check | make test | make help. Everything is installed into .venv, nothing elsewhere.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin

# The first interpreter that TensorFlow has wheels for.
PYTHON ?= $(shell for candidate in python3 python3.13 python3.12 python3.11 python3.10; do \
    $$candidate -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null \
    && { echo $$candidate; break; }; done)

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export TF_CPP_MIN_LOG_LEVEL := 3

.PHONY: help demo test check changed lint public-names benchmarks audit clean

help:  ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

demo: $(VENV)/.examples  ## train, tune, distil, prune, export and ask a recommender on grocery data
	$(BIN)/python examples/grocery.py

# One TensorFlow thread a process: small graphs gain nothing from more.
PYTEST := TF_NUM_INTRAOP_THREADS=1 TF_NUM_INTEROP_THREADS=1 $(BIN)/python -m pytest

test: lint  ## lint, types, import contracts, then every test and doctest
	@echo '== tests and doctests'
	@# One worker a core; a worker without tests takes half of another's.
	$(PYTEST) -n 2 --dist worksteal $(PYTEST_ARGS)

check: $(VENV)/.test  ## within a minute: lint, types, contracts and the fast tests of what changed since main
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=target lint changed

changed: $(VENV)/.test
	@echo '== tests of the changes'
	$(PYTEST) -q -m 'not slow' $$($(BIN)/python tests/changed.py) $(PYTEST_ARGS)

lint: $(VENV)/.test  ## only lint, types and import contracts
	@echo '== lint'
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@echo '== types'
	$(BIN)/mypy
	@echo '== import contracts'
	$(BIN)/lint-imports

public-names: $(VENV)/.test  ## accept the public names, defaults and search spaces of today as the golden ones
	$(BIN)/python tests/api/public_names.py

benchmarks: $(VENV)/.benchmarks  ## measure everything into benchmarks/RESULTS.md (hours; BENCHMARKS_ARGS="--list")
	$(BIN)/python benchmarks/run.py $(BENCHMARKS_ARGS)

audit: $(VENV)/.test  ## compare what is installed with the known advisories of PyPI (needs the network)
	$(PYTHON) -m venv .audit && .audit/bin/python -m pip install --quiet pip-audit
	.audit/bin/pip-audit --skip-editable --path $$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') \
	    2>&1 | tee .audit/report
	@# pip-audit passes if it reaches no database.
	@! grep -q 'could not be audited' .audit/report \
	    || { echo 'The packages above were not audited: the database of PyPI does not have them or cannot be reached.'; exit 1; }

clean:  ## remove the environments, caches and builds
	rm -rf $(VENV) .audit .peers build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps: newer than what they were installed from, so that a second run installs nothing.
$(VENV)/.examples: extras := examples
$(VENV)/.test: extras := test,examples
$(VENV)/.benchmarks: extras := benchmarks
$(VENV)/.examples $(VENV)/.test $(VENV)/.benchmarks: setup.cfg pyproject.toml | $(BIN)/pip
	$(BIN)/python -m pip install --quiet --progress-bar off --editable '.[$(extras)]'
	@touch $@

# Debian's python3 cannot give a new environment its pip unless python3-venv is there; a pip of the system's own can.
$(BIN)/pip:
	@test -n '$(PYTHON)' || { echo 'tfmtl needs Python 3.10 to 3.13, for instance: apt-get install python3'; exit 1; }
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 \
	    || { $(PYTHON) -m venv --clear --without-pip $(VENV) && $(PYTHON) -m pip --python $(BIN)/python install --quiet pip; } \
	    || { rm -rf $(VENV); echo '$(PYTHON) cannot make a virtual environment: apt-get install python3-venv'; exit 1; }
	@echo 'installing into $(VENV): about 3 GB, a few minutes the first time'
