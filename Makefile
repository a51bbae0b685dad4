# Two commands from a bare checkout: `make e2e` runs the tutorial, `make test` passes the tests.
# Everything they need they get for themselves, into .venv and the user's cache folder.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help e2e demo faults test unit integration lint format lock doctor down clean bench-queue tools

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

e2e: $(READY) ## Run the tutorial on a kind cluster of its own: from nothing to verdict
	@$(BIN)/python -m harness run $(ARGS)

demo: $(READY) ## The same as a walkthrough, with a live view of the pods
	@$(BIN)/python -m harness demo $(ARGS)

faults: $(READY) ## Break a pod, a worker, the queue in the middle of runs, and judge
	@$(BIN)/python -m harness faults $(ARGS)

test: tools ## All tests: unit, integration and end to end
	@$(BIN)/python -m pytest $(ARGS)

unit: tools ## The fast tests, without Docker
	@$(BIN)/python -m pytest tests/unit $(ARGS)

integration: tools ## The queue against a real Redis
	@$(BIN)/python -m pytest tests/integration $(ARGS)

lint: $(READY) ## ruff and mypy --strict
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

format: $(READY) ## Format the code
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

doctor: $(READY) ## What is here of what a run needs
	@$(BIN)/python -m harness doctor

down: $(READY) ## Delete every cluster that the harness made
	@$(BIN)/python -m harness down --all

clean: ## Delete clusters, reports and the environment, and stop the engine that a run started
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m harness down --all --engine; fi
	rm -rf $(VENV) out .pytest_cache .mypy_cache .ruff_cache .hypothesis .pytest-kind

bench-queue: tools ## Measure RedisWQ beside bare round trips
	@PYTHONPATH=.:worker $(BIN)/python benchmarks/bench_rediswq.py

lock: ## Renew requirements.txt, every version with its hashes (needs uv)
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-header --upgrade --quiet -o requirements.txt

tools: $(READY)
	@$(BIN)/python -m harness install redis-server shellcheck

$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name one with make PYTHON=..." >&2; exit 3; }
	@$(PYTHON) -m venv --clear $(VENV) >/dev/null 2>&1 || \
	  { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
	    apt-get update -qq && apt-get install -qq -y python3-venv && $(PYTHON) -m venv --clear $(VENV); } || \
	  { echo "$(PYTHON) can't make a virtual environment; install its venv module (python3-venv)." >&2; exit 3; }
	@echo "installing the locked Python packages into $(VENV)"
	@$(BIN)/python -m pip install --quiet --require-hashes -r requirements.txt
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@
