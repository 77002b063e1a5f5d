# Two commands do everything: `make demo` and `make test`. Both do their own set-up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

# Compiled modules are kept, also where the environment says otherwise: every process of a running
# system, and every process of the tests, would compile all of Triage anew.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help demo up viewer test check format lock client shipped train evaluate benchmarks clean

help: ## list the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "Triage needs Python 3.11 or newer. Name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
		{ echo "python3 -m venv failed. On Debian: apt-get install python3-venv"; exit 1; }

$(VENV)/.runtime: requirements.lock pyproject.toml | $(BIN)/python
	@echo "Installing the locked dependencies into $(VENV) (first run: one to four minutes)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.runtime
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.lock
	@touch $@

demo: $(VENV)/.runtime ## a small hospital on simulated studies (ARGS=--exit ends by itself)
	@$(BIN)/triage demo $(ARGS)

up: $(VENV)/.runtime ## run Triage on this machine
	@$(BIN)/triage up $(ARGS)

viewer: ## fetch the OHIF viewer with npm, which `triage web` then serves
	@deploy/viewer.sh var/viewer

check: $(VENV)/.dev ## format, lint, types, layers
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

# Four at once also on two cores: the tests wait for sockets, clocks and processes most of the time.
test: check ## every check and every test (ARGS goes to pytest)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 4 $(ARGS)

format: $(VENV)/.dev ## format the code and mend what can be mended
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

lock: $(VENV)/.dev ## resolve the dependencies anew into the lock files
	@$(BIN)/python -m pip install --quiet pip-tools
	@$(BIN)/python -m piptools compile -q --strip-extras --no-emit-index-url --no-emit-find-links \
		--no-annotate --no-header --allow-unsafe -o requirements.lock pyproject.toml
	@$(BIN)/python -m piptools compile -q --strip-extras --no-emit-index-url --no-emit-find-links \
		--no-annotate --no-header --allow-unsafe --extra test --extra train \
		-o requirements-dev.lock pyproject.toml
	@sed -i -E 's/^(torch==[^+]*)\+.*/\1/' requirements.lock requirements-dev.lock

client: $(VENV)/.dev ## write the models of triage.client anew, after a change of the API
	@$(BIN)/python -m tests.client.generation

shipped: $(VENV)/.dev ## note the digests of the packages in model_registry as those shipped with Triage
	@$(BIN)/python -m triage.models.shipped model_registry

train: $(VENV)/.dev ## train the head CT reference model from scratch
	@$(BIN)/python model_registry/head-ct-hemorrhage/1.0.0/recipe/train.py $(ARGS)

evaluate: $(VENV)/.dev ## the head CT reference model on held-out simulated studies
	@$(BIN)/python model_registry/head-ct-hemorrhage/1.0.0/recipe/evaluate.py $(ARGS)

benchmarks: $(VENV)/.dev ## every benchmark, figures beside the peer's or the floor's
	@for benchmark in benchmarks/*.py; do $(BIN)/python $$benchmark $(ARGS) || exit 1; done

clean: ## remove the environment and everything that was made
	@rm -rf $(VENV) var .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
