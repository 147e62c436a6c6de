# One short verb a job. The environment makes itself on first use.
PYTHON ?= python3
ENV := .venv
BIN := $(ENV)/bin
STAMP := $(ENV)/.installed
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help run test check bench golden pictures wheel clean

help: ## say what there is
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(STAMP) ## the whole comparison: make run, or make run WORDS="attack=lira seed=1"
	$(BIN)/privbench $(WORDS)

test: $(STAMP) ## the wheel in an environment of its own, the page in a browser, the quick suite
	$(BIN)/python -m pytest -n 0 -m wheel
	$(BIN)/python -m pytest -n 0 -m browser -rs
	$(BIN)/python -m pytest

check: $(STAMP) ## format, lint, types, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP) ## measure; writes benchmarks/results.json; some only: make bench WORDS="seal help"
	$(BIN)/python benchmarks/run.py $(WORDS)

golden: $(STAMP) ## slow tests and figures of the literature
	PRIVBENCH_SHAPES=off $(BIN)/python -m pytest -n 0 -m "slow or golden"

pictures: $(STAMP) ## photograph the report of the last "make run" for the README; needs Chromium
	$(BIN)/python docs/pictures.py

wheel: $(STAMP) ## build dist/*.whl
	$(BIN)/python -m build --wheel --no-isolation

clean: ## remove what was built; runs and the environment stay
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache

$(STAMP): pyproject.toml constraints.txt setup.py
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
	  echo "privbench needs Python 3.11 to 3.13; '$(PYTHON)' is $$($(PYTHON) --version 2>&1)." \
	       "Name another: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 2; }
	$(PYTHON) -m venv $(ENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $(STAMP)
