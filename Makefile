# Everything runs in .venv, which is made on the first call and again when the dependencies change.
PYTHON ?= python3
BIN := .venv/bin
CORPUS ?= harbour
# Two cores bear two workers; each computes on one thread, for on small models more of them wait for each other.
# Bytecode is kept, whatever the surroundings say: tests start the command line a hundred times.
WORKERS ?= 2
PYTEST = OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help audit test test-slow test-cluster lint format golden docs sample dist bench reproduce reproduce-images reproduce-tables clean

help: ## say what the targets do
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

audit: .venv/.installed ## install, then audit the embedded corpus from insertion to report (minutes)
	$(BIN)/canaryaudit run

test: .venv/.installed-dev ## run the tests that take seconds
	$(PYTEST) -m "not slow and not cluster"

test-slow: .venv/.installed-dev ## run the tests that take minutes
	$(PYTEST) -m slow

test-cluster: .venv/.installed-dev ## run the tests of jobs of several processes, which are killed and started again
	$(PYTEST) -m cluster

lint: .venv/.installed-dev ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/.installed-dev ## put the code into its style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

golden: .venv/.installed-dev ## write the report's golden files, its JSON Schemas and the page of commands anew
	$(BIN)/python -m tests.golden

docs: .venv/.installed-docs ## build the documentation as a site; a broken link or a missing docstring fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict
	@echo "Open site/index.html"

sample: .venv/.installed ## audit the embedded corpus, for reports/sample and the README's transcript (minutes)
	$(BIN)/python -m tests.docs.sample

dist: .venv/.installed-dev ## build the wheel and the source archive into dist/, and check them
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/python -m twine check --strict dist/*

reproduce: .venv/.installed ## redo the published experiment; CORPUS=alice.txt for its own text (hours)
	$(BIN)/python -m tests.reproduction --corpus $(CORPUS)

reproduce-images: .venv/.installed-dev ## redo the published experiment on wrong labels of images (an hour)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.reproduction.images

reproduce-tables: .venv/.installed-dev ## redo the published experiments on linear models (minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.reproduction.tables

bench: .venv/.installed-dev ## measure speed
	$(BIN)/python -m tests.benchmarks

clean: ## remove the virtual environment and all caches; runs and reports stay
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist site
	find canaryaudit tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv

.venv/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

.venv/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch .venv/.installed $@

.venv/.installed-docs: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@touch .venv/.installed $@
