# Every target does the set-up that it needs. `make help` lists them.
BIN := .venv/bin
# The folder of settings that `make lab` hands to JupyterLab: offline, loopback, token on (see the comments in it).
export JUPYTER_CONFIG_PATH := $(CURDIR)/labs/.jupyter$(if $(JUPYTER_CONFIG_PATH),:$(JUPYTER_CONFIG_PATH))
FIRST_LAB := $(notdir $(firstword $(sort $(wildcard labs/01_*.ipynb))))

.PHONY: help setup lab test test-all lint bench texts wheel clean
.DEFAULT_GOAL := help

help:  ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

setup:  ## Make or refresh the virtual environment .venv, at the versions of constraints.txt
	@sh .ci/setup

lab: setup  ## Open JupyterLab on the first lab (more options: make lab ARGS="--no-browser --port 9999")
	@echo "== lab: measuring this machine, once, so that the lab can predict (at most a minute)"
	@$(BIN)/aiinfra calibrate --if-missing >/dev/null || echo "== lab: not measured; the lab says how to do it later"
	@echo "== lab: opening JupyterLab on $(or $(FIRST_LAB),the folder labs); end it with Ctrl-C"
	@PATH="$(CURDIR)/$(BIN):$$PATH" exec $(BIN)/jupyter-lab --ServerApp.root_dir="$(CURDIR)/labs" --LabApp.default_url="/lab/tree/$(FIRST_LAB)" $(ARGS)

test: setup  ## Run every test suite, some 38 minutes on 2 cores (some of them: make test SUITES="unit mpi")
	@$(BIN)/python tests/suites.py $(SUITES)

test-all: setup  ## Run every test suite with the slow tests, without a budget
	@$(BIN)/python tests/suites.py --all $(SUITES)

lint: setup  ## Check style, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup  ## Run the benchmarks under tests/bench and print what they measured
	@set -e; for script in tests/bench/bench_*.py; do \
	  test -e "$$script" || { echo "tests/bench holds no bench_*.py"; exit 1; }; \
	  echo "== $$script"; $(BIN)/python "$$script" $(ARGS); done

texts: setup  ## Bring the catalogs of other languages up to date with the source, and say what lacks a translation
	@$(BIN)/python tests/texts/catalogs.py $(ARGS)

wheel: setup  ## Build the wheel into dist/
	$(BIN)/python -m build --wheel --no-isolation --outdir dist

clean:  ## Remove what building and testing left; your runs and .venv stay
	rm -rf dist build test-artifacts .mypy_cache .ruff_cache .hypothesis .pytest_cache *.egg-info
	find aiinfra_widgets tests labs .ci -name __pycache__ -type d -prune -exec rm -rf {} +
