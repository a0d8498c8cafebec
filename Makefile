# Every target sets up what it needs in .venv; nothing else on the machine is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# the trained checkpoint, where it was trained here: then transformers answers the questions too
BENCH_CHECKPOINT := $(patsubst %,--checkpoint %,$(wildcard examples/worldfacts/checkpoint))
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: install demo test test-slow lint bench clean

install: $(VENV)/.test  ## everything: runtime, export, bench, test tools

demo: $(VENV)/.cpu  ## the embedded default answers questions (no torch needed)
	$(BIN)/ragengine demo

test: $(VENV)/.test  ## the fast tests: no network, no GPU
	$(BIN)/python -m pytest

test-slow: $(VENV)/.test  ## BART-large shape and other long checks
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.test  ## this machine: stages, floors, and the other engines that are installed; minutes
	$(BIN)/ragengine bench --shape worldfacts --precision fp32 --precision int8 --batch \
		--sweep documents --sweep beams \
		--bundle examples/worldfacts/bundle --index examples/worldfacts/index \
		--questions examples/worldfacts/questions.jsonl $(BENCH_CHECKPOINT) --output build/bench

clean:
	rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.cpu: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable '.[cpu]'
	touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable '.[test]'
	touch $@ $(VENV)/.cpu
