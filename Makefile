# Every target sets up what it needs in .venv; nothing else on the machine is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# the trained checkpoint, where it was trained here: then transformers answers the questions too
BENCH_CHECKPOINT := $(patsubst %,--checkpoint %,$(wildcard examples/worldfacts/checkpoint))
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: install demo test test-slow fuzz test-oldest audit lint bench clean

install: $(VENV)/.test  ## everything: runtime, export, bench, test tools

demo: $(VENV)/.cpu  ## the embedded default answers questions (no torch needed)
	$(BIN)/ragengine demo

test: $(VENV)/.test  ## the fast tests: no network, no GPU; in development mode, where a warning is an error
	$(BIN)/python -X dev -W error -m pytest

test-slow: $(VENV)/.test  ## BART-large shape and other long checks
	$(BIN)/python -m pytest -m slow

fuzz: $(VENV)/.test  ## readers of foreign files, a minute each, with atheris
	$(PIP) atheris
	for reader in manifests graphs passages; do \
		$(BIN)/python -m tests.fuzz.$$reader -max_total_time=60 || exit 1; done

test-oldest:  ## the oldest dependencies that pyproject.toml allows answer questions
	$(PYTHON) -m venv --clear build/oldest
	build/oldest/bin/python -m pip install --quiet --disable-pip-version-check numpy==1.26.1 tokenizers==0.21.0 \
		click==8.1.0 rich==13.0.0 onnxruntime==1.24.1 faiss-cpu==1.15.0 --editable .
	build/oldest/bin/ragengine eval examples/worldfacts/bundle examples/worldfacts/index \
		examples/worldfacts/questions.jsonl --json
	build/oldest/bin/ragengine demo

audit: $(VENV)/.test  ## known vulnerabilities of all that is installed; fails, too, where one cannot be looked up
	$(PYTHON) -m venv build/audit
	build/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	$(BIN)/python -m pip list --format=freeze --exclude-editable | sed 's/+[^ ]*//' > build/audit/installed.txt
	build/audit/bin/pip-audit --strict --no-deps --disable-pip --requirement build/audit/installed.txt

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.test  ## this machine: stages, rooflines, and the other engines that are installed; minutes
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
