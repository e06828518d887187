# Everything happens in .venv, which `make venv` builds from the hashed pins of tests/requirements.txt.
SHELL := bash
.DEFAULT_GOAL := help
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
PYTEST := $(BIN)/python -m pytest
WORKERS ?= 2
SCHEDULES ?= 100000
PULLS ?= 10000
SEED ?= 1
FUZZ ?= 20000
# A test that hangs ends its worker; with loadgroup, starting another one can wait for ever.
XDIST := -n $(WORKERS) --dist loadgroup --max-worker-restart=0
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	--no-emit-index-url --no-emit-find-links --no-emit-package replicator

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-17s %s\n", $$1, $$2}' Makefile
	@echo 'Variables: ARGS="..." goes to the tool of test, test-fast, conformance, bench and lock; WORKERS=0 runs tests in one process.'

venv: .venv/.installed ## Make .venv, or bring it up to date with the pins

.venv/.installed: tests/requirements.txt pyproject.toml
	@$(BIN)/python -c '' 2>/dev/null || { for python in python3 python3.13 python3.12 python3.11; do \
	  $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	  $$python -c 'import venv, ensurepip' 2>/dev/null || { echo "$$python cannot make a venv: install the package python3-venv (apt-get install python3-venv), then try again." >&2; exit 1; }; \
	  exec $$python -m venv --clear .venv; done; \
	  echo 'Python 3.11 or newer is needed, and none was found on PATH.' >&2; exit 1; }
	$(PIP) install --require-hashes -r tests/requirements.txt
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

tools: ## Install the real clients and servers that tests drive (apt, as root)
	@tests/tools.sh

run: venv ## Start three regions on this machine
	$(BIN)/replicator serve --config configs/three-regions.yaml

demo: venv tools ## Play the demo
	$(BIN)/python deploy/demo/demo.py

test: venv tools ## Run all tests
	$(PYTEST) $(XDIST) $(ARGS)

test-fast: venv ## Run the unit and contract tests that are not slow, and a few simulated schedules
	$(PYTEST) $(XDIST) -m 'not slow' tests/unit tests/contract tests/simulation $(ARGS)

simulate: venv ## Try the replication protocol in SCHEDULES=100000 random schedules from SEED=1
	$(BIN)/python -m tests.simulation --schedules $(SCHEDULES) --seed $(SEED) $(if $(filter 1,$(SCHEDULES)),--trace) $(ARGS)

chaos-cache: venv ## Try the cache with PULLS=10000 pulls while its upstreams misbehave at random, from SEED=1
	$(BIN)/python -m tests.chaos --pulls $(PULLS) --seed $(SEED) $(ARGS)

conformance: venv tools ## Run the registry specification's table of cases
	$(PYTEST) tests/conformance $(ARGS)

cover: venv tools ## Measure branch coverage: 95 % overall, all of core
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(XDIST) $(ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --include='replicator/core/*' --fail-under=100
	$(BIN)/coverage report --fail-under=95

faults: venv tools ## Run the faults between regions at full length (CI runs a part)
	REPLICATOR_CAMPAIGN=1 $(PYTEST) -n $(WORKERS) tests/faults $(ARGS)

fuzz-ecr: venv ## Ask the ECR API FUZZ=20000 random requests made from its model
	REPLICATOR_FUZZ=$(FUZZ) $(PYTEST) tests/integration/test_ecr_fuzz.py $(ARGS)

ecr-model: venv ## Make the models of the ECR API anew from the botocore that is installed
	$(BIN)/python -m tests.ecr_model

ecr-compatibility: venv ## Make the table of the ECR API's operations anew
	$(BIN)/python -m tests.ecr_compatibility

bench: venv tools ## Run the benchmarks
	$(BIN)/python -m tests.benchmarks $(ARGS)

format: venv ## Format the code and fix what can be fixed
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

format-check: venv ## Check the format
	$(BIN)/ruff format --check .

lint: venv ## Lint
	$(BIN)/ruff check .

types: venv ## Check types
	$(BIN)/mypy

imports: venv ## Check that imports keep to the layers
	$(BIN)/lint-imports --no-logo

check: format-check lint types imports test ## Everything CI checks

lock: .venv/.installed ## Pin the requirements anew (ARGS=--upgrade for newer versions)
	$(LOCK) $(ARGS) deploy/requirements.in -o deploy/requirements.txt
	$(LOCK) $(ARGS) -c deploy/requirements.txt tests/requirements.in -o tests/requirements.txt

clean: ## Remove caches and build results (not .venv)
	rm -rf build dist htmlcov .coverage .coverage.* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find replicator tests deploy -name __pycache__ -prune -exec rm -rf {} +

.PHONY: help venv tools run demo test test-fast simulate chaos-cache conformance cover faults fuzz-ecr ecr-model ecr-compatibility bench format format-check lint types imports check lock clean
