# `make demo` and `make test` are all a newcomer needs; each makes the environment it runs in.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
DEMO_OUTPUT ?= build/demo
export OMP_NUM_THREADS ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 2)

.PHONY: demo test test-slow test-upstream test-web check format clean

demo: $(INSTALLED)
	$(BIN)/squeezebert demo --output $(DEMO_OUTPUT)

test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile

# Minutes, not seconds: the demo's own pieces on real weights, kill and resume, two processes
test-slow: $(INSTALLED)
	$(BIN)/python -m pytest -q -m slow

# The page of `squeezebert web` in a real browser: needs Node.js with npm, and Chromium (CHROMIUM names another one)
test-web: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[browser]'
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m web

# transformers' shared model tests come with its source distribution only
test-upstream: $(INSTALLED)
	$(BIN)/python tests/upstream/run.py

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(INSTALLED): pyproject.toml constraints.txt
	@echo "Making the environment in $(VENV): a few minutes, once"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test,check]'
	@touch $(INSTALLED)

clean:
	rm -rf $(VENV) build .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
