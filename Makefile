# The two commands: `make serve` and `make test`. Both make .venv on first use, and again when
# pyproject.toml or constraints.txt change.
PYTHON ?= python3
PORT ?= 8000
BIN := .venv/bin
# Threads that spin beside a busy neighbour are 10 to 25 times slower than threads that sleep.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: serve test test-all prove-measures prove-shards prove-speed prove-service check format clean

.venv: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt ".[dev,train]"
	touch $@

serve: .venv
	$(BIN)/python -m service --port $(PORT)

test: .venv
	$(BIN)/python -m pytest -m "not slow"

test-all: .venv
	$(BIN)/python -m pytest

# Recorded figures of the reference code; FOLDER as evaluation/golden.py describes it.
FOLDER ?= ../shared/references
prove-measures: .venv
	$(BIN)/python -m evaluation golden $(FOLDER)

# Samples of tar shards a second, beside tarfile's own stream over the same files.
prove-shards: .venv
	$(BIN)/python -m evaluation streams --samples 100000

# Images a second beside transformers' generate: random weights of the published sizes, both on this machine in turns.
prove-speed: .venv
	$(BIN)/python -m evaluation speed --peer transformers --turns 3

# The service under load, overload, hostile pictures and bad clients, and beside LitServe: some 50 minutes at 60 seconds a load.
# The figures are put into docs/service.md.
SECONDS ?= 60
prove-service: .venv .venv/proofs
	$(BIN)/python -m tests.proofs --seconds $(SECONDS) --write

.venv/proofs: .venv/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt ".[prove]"
	touch $@

check: .venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache
