# The two commands: `make serve` and `make test`. Both create .venv on first use, and again when
# pyproject.toml or constraints.txt change.
PYTHON ?= python3
PORT ?= 8000
BIN := .venv/bin

.PHONY: serve test test-all default prove-clients prove-field prove-measures prove-page prove-shards prove-speed prove-service prove-training check format docs clean

.venv: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt ".[dev,train]"
	touch $@

serve: .venv
	$(BIN)/python -m service --port $(PORT)

# Two processes with one OpenMP thread each are faster than one process with two.
test: .venv
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n 2 --dist worksteal

test-all: .venv
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

# Recorded figures of the reference code; FOLDER as benchmarks/golden.py describes it.
FOLDER ?= ../shared/references
prove-measures: .venv
	$(BIN)/python -m benchmarks golden $(FOLDER)

# Samples of tar shards per second, compared with tarfile's own stream over the same files.
prove-shards: .venv
	$(BIN)/python -m benchmarks streams --samples 100000

# Images per second compared with transformers' generate: random weights of the published sizes, in turns on this machine.
prove-speed: .venv
	$(BIN)/python -m benchmarks speed --peer transformers --turns 3

# Training: next to transformers' Trainer, loading of 100,000 samples on two ranks, and with and without each part of a recipe
# (ABLATION has a train and a val split; about an hour).
ABLATION ?= ../shared/data/flickr8k
prove-training: .venv
	$(BIN)/python -m benchmarks training
	$(BIN)/python -m benchmarks loading
	$(BIN)/python -m benchmarks ablation --data $(ABLATION) --folder runs/ablation

# The service under load, overload, hostile images and bad clients, and compared with LitServe: about 50 minutes at 60 seconds per
# load. The figures are written into docs/service.md.
SECONDS ?= 60
prove-service: .venv .venv/proofs
	$(BIN)/python -m tests.proofs --seconds $(SECONDS) --write

.venv/proofs: .venv/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt ".[prove]"
	touch $@

# Client libraries of other services, unchanged, against the running service; the one in JavaScript if npm is installed.
prove-clients: .venv .venv/clients
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile tests/clients

.venv/clients: .venv/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt ".[clients]"
	-command -v npm >/dev/null && npm install --silent --prefix .venv/node @huggingface/inference@4.13.30
	touch $@

# The page in Chromium, which must be installed (Debian: chromium): mouse, keyboard, touch, axe; Lighthouse if npm is installed.
prove-page: .venv .venv/browser
	@command -v chromium chromium-browser google-chrome | grep -q . || { echo "prove-page needs Chromium: install the package chromium"; exit 1; }
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/browser

.venv/browser: .venv/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt ".[browser]"
	-command -v npm >/dev/null && npm install --silent --prefix .venv/node lighthouse@12.8.2
	touch $@

# Inputs and habits of users that once failed, with today's result; FIELD is the folder of such inputs.
FIELD ?= ../shared/field
prove-field: .venv
	$(BIN)/python -m tests.proofs.field $(FIELD)

# The embedded checkpoint, trained again; docs/checkpoints.md has the steps. DATA and CAPTIONS are not in the repository; PREVIOUS is the
# checkpoint to start from, by default the one that model/default had before. Run it again after an interruption.
DATA ?= ../shared/data
CAPTIONS ?= ../shared/references/captions_val2017.json.gz
PREVIOUS ?= runs/model/default
RUN ?= runs/default
default: .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt ".[detector]"
	test -d $(PREVIOUS) || { mkdir -p runs && git archive b0fe25f model/default | tar x -C runs; }
	$(BIN)/python -m training.embedded --data $(DATA) --captions $(CAPTIONS) --previous $(PREVIOUS) --run $(RUN)

check: .venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The tables of docs/ that are derived from declarations.
docs: .venv
	$(BIN)/python -m tests.docs_tables

clean:
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache
