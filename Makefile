# Everything runs in .venv, which `make setup` creates; nothing else has to be installed by hand.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.requirements-installed
LOWEST := .venv-lowest
JS_TESTS := $(wildcard tests/js/*.test.js tests/js/*.test.mjs)

MINUTES ?= 10

.PHONY: help setup demo test test-lowest test-setup lint typecheck pytest test-js soak torture bench bench-quick format clean

help:
	@echo "make setup   create $(VENV) and install what development needs"
	@echo "make demo    run the demonstration without a host; pictures in output/demo/"
	@echo "make test    check and test everything this machine can run"
	@echo "make soak MINUTES=n   random prompts on a live ComfyUI; report in output/soak.json"
	@echo "make torture   let memory end at every place of every node's run (hours)"
	@echo "make test-lowest   test the core with the lowest versions it asks for"
	@echo "make bench   measure fidelity in full (hours) and write docs/benchmarks.md"
	@echo "make bench-quick   run the quick benchmarks"
	@echo "make format  format the Python code"

setup: $(READY)

$(READY): requirements.txt requirements-dev.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements-dev.txt
	touch $@

demo: setup
	$(BIN)/python -m demo.run

test: lint typecheck pytest test-js

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

typecheck: setup
	$(BIN)/mypy

# What the tests in a real ComfyUI need on top; nothing where no ComfyUI is found.
test-setup: setup
	$(BIN)/python -m tests.install_host_requirements
	$(BIN)/python -m tests.install_browser

pytest: test-setup
	$(BIN)/python -m pytest

# An environment of its own, with the lowest versions that requirements.txt states.
$(LOWEST)/.requirements-installed: requirements-lowest.txt
	test -x $(LOWEST)/bin/python || $(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --requirement requirements-lowest.txt
	touch $@

test-lowest: $(LOWEST)/.requirements-installed
	$(LOWEST)/bin/python -m pytest tests/core

test-js:
	$(if $(JS_TESTS),node --test $(JS_TESTS),@echo "tests/js holds no test yet.")

soak: setup
	$(BIN)/python -m tests.install_host_requirements
	$(BIN)/python -m tests.soak --minutes $(MINUTES)

# Memory that ends at every single place of every node's run: hours.
torture: test-setup
	TORTURE_POINTS=1000000 $(BIN)/python -m pytest tests/host/test_torture.py -k memory_that_ends

bench: setup
	$(BIN)/python -m benchmarks.fidelity --output docs/fidelity
	$(BIN)/python -m benchmarks.fidelity.report docs/fidelity/*.json
	$(BIN)/python -m benchmarks.fidelity.pictures

bench-quick: setup
	$(BIN)/python -m benchmarks.fidelity --quick
	$(BIN)/python -m benchmarks.overhead --quick
	$(BIN)/python -m benchmarks.detect --quick
	$(BIN)/python -m benchmarks.repair --quick

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf output .mypy_cache .pytest_cache .ruff_cache
