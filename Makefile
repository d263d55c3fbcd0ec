# The two commands of the README: `make demo` and `make test`. Both create .venv first.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help demo test test-faults lint lock docs clean

help:
	@echo "make demo   create .venv and run the main job on the built-in corpus (5 minutes on 2 cores)"
	@echo "make test   create .venv, lint, type-check and run all tests (under 20 minutes on 2 cores)"
	@echo "make test-faults   inject the faults that studies must survive (after make test; under 30 minutes on 2 cores)"
	@echo "make lint   the checks without the tests"
	@echo "make lock   pin all dependencies anew (needs uv)"
	@echo "make docs   write docs/cli.md from the commands' help"

.venv/ready: requirements.lock requirements-cpu.lock pyproject.toml scripts/install.py
	@$(PYTHON) scripts/install.py

demo: .venv/ready
	@$(BIN)/rayscale demo --yes

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	XDG_CACHE_HOME=.venv/cache $(BIN)/bandit --quiet --configfile pyproject.toml --recursive rayscale jobs scripts
	$(BIN)/python scripts/audit.py

test: lint
# Ray's tests have a process of their own: one of two runs of all in one crashed at its very end (docs/LOG.md)
	$(BIN)/pytest -m "not faults" tests/cluster tests/ray
	$(BIN)/pytest -m "not faults" -n 2 --dist loadfile tests/nn tests/unit

test-faults: .venv/ready
	$(BIN)/pytest -m "faults or row" tests/cluster tests/ray
	$(BIN)/pytest -m "faults or row" -n 2 --dist loadfile tests/nn tests/unit

# torch stays at the version whose CPU build is pinned in requirements-cpu.lock
lock:
	echo "torch==$$(sed -n 's/^torch==\([0-9.]*\)+cpu.*/\1/p' requirements-cpu.lock)" > .torch-pin
	uv pip compile --universal --extra dev --generate-hashes --no-emit-index-url --python-version 3.11 \
	  --constraint .torch-pin --no-header pyproject.toml -o requirements.lock
	rm .torch-pin

docs: .venv/ready
	$(BIN)/python scripts/cli_help.py

clean:
	rm -rf .venv
