# Two commands do all on a fresh machine: `make demo` and `make test`. Both set up .venv first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: demo test test-slow check lint bench docs clean

demo: $(VENV)/.core  ## compile the trained demo network and run it on the virtual chip
	$(BIN)/aimc demo

test: $(VENV)/.dev  ## the test suite
	$(BIN)/python -m pytest -n 2

test-slow: $(VENV)/.dev  ## the large counts
	$(BIN)/python -m pytest -n 2 -m "slow or not slow"

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test  ## everything: format, lint, types, layers, tests

bench: $(VENV)/.core  ## speed, as ratios to plain torch measured side by side
	for file in benchmarks/bench_*.py; do $(BIN)/python $$file || exit 1; done

docs: $(VENV)/.core  ## regenerate the generated tables of docs/
	$(BIN)/python -m aimc_compiler.chip.reference docs/chip-spec.md
	$(BIN)/python -m aimc_compiler.training.reference docs/training.md

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.core: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) --editable .
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) --editable '.[dev]'
	touch $@ $(VENV)/.core
