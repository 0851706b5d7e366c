# Everything a clean clone needs: Python 3.11 or newer, pip and make.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow check bench docs clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

demo: $(STAMP) ## The main job: the best layouts of llama3-8b on a TPU v5p-64, compiled and run small
	$(BIN)/jaxscale search llama3-8b --cluster v5p-64 --seq-len 8192 --global-batch-size 128 \
		--check compile,twin --report report.html

test: $(STAMP) ## Run the tests
	$(BIN)/python -m pytest -n 2

test-slow: $(STAMP) ## Run the tests that take minutes
	$(BIN)/python -m pytest -n 2 -m slow

check: $(STAMP) ## Linter, formatter and type checker
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyrefly check

bench: $(STAMP) ## How fast jaxscale itself is
	$(BIN)/jaxscale bench search

docs: $(STAMP) ## Build the documentation site into site/
	$(BIN)/pip install -q -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean: ## Remove the virtual environment and what runs left behind
	rm -rf .venv report.html .pytest_cache .ruff_cache build dist site

$(STAMP): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable '.[dev]'
	@touch $(STAMP)
