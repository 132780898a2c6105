# Every target sets itself up in .venv and skips what is done. `make help` lists them.
VENV := .venv
# The first of these that runs and is new enough.
FITS := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c '$(FITS)' 2>/dev/null && { echo $$p; break; }; done)
BIN := $(VENV)/bin
READY := $(VENV)/ready
.DEFAULT_GOAL := help
# A file's tests stay together: they share fixtures. One thread each, as the cores are taken.
PARALLEL := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile
# Bytecode first: the tests start hundreds of interpreters, which do not write it.
COMPILE := $(BIN)/python -m compileall -q seq2seq scripts tests
.PHONY: help install demo test test-fast test-all check clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(READY) ## set up .venv with the pinned versions

$(READY): pyproject.toml constraints.txt
	@$(or $(PYTHON),false) -c '$(FITS)' \
	  || { echo "error: python3: no Python 3.11 or later found. Use make PYTHON=/path/to/python3.14"; exit 5; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,export,play]"
	@touch $@

demo: $(READY) ## train, translate, score and draw on the embedded corpus, about 3 minutes
	$(BIN)/python train.py +experiment=quickstart

test: check ## the whole gate: checks and tests
	$(COMPILE)
	$(PARALLEL) -m "not slow and not gpu"

test-fast: $(READY) ## the quick tests, for the loop while working
	$(COMPILE)
	$(PARALLEL) -m "not slow and not gpu and not e2e"

test-all: check ## everything, with what takes long
	$(BIN)/python -m pytest -q

check: $(READY) ## format, lint, types, docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mkdocs build --strict --quiet

clean: ## remove .venv and caches; runs and data stay
	rm -rf $(VENV) .cache/site .mypy_cache .ruff_cache .pytest_cache
