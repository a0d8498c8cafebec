# Every target sets up what it needs in .venv; only a browser for the tests is installed on the machine itself,
# by root on Debian.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# Python's development mode, where a warning is an error; pytest-xdist's workers get the same flags.
STRICT := $(BIN)/python -X dev -W error
FAST := not slow and not gpu and not ray
WORKERS := --tx '2*popen//python=$(STRICT)' --dist loadgroup
HOURS ?= 0.2
SHARE ?= 1
EXTRAS ?= cpu export
# The trained checkpoint, where it was trained here: with it transformers answers the questions too.
BENCH_CHECKPOINT := $(patsubst %,--checkpoint %,$(wildcard examples/worldfacts/checkpoint))

.PHONY: install demo lint test test-slow coverage fuzz mutants test-oldest test-transformers test-integrations test-ray audit sbom lock build docs docs-tutorial bench clean

install: $(VENV)/.test $(VENV)/.browser  ## Everything: runtime, export, training, benchmark and test tools

demo: $(VENV)/.cpu  ## The embedded model answers questions; torch is not needed
	$(BIN)/ragengine demo

lint: $(VENV)/.test  ## Style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: $(VENV)/.test $(VENV)/.browser  ## The fast tests in two processes: no network, no GPU, and a warning is an error
	$(STRICT) -m pytest -m '$(FAST) and serial'; serial=$$?; \
	$(STRICT) -m pytest $(WORKERS) -m '$(FAST) and not serial' && exit $$serial

test-slow: $(VENV)/.test  ## Minutes of work or gigabytes of memory: BART-large, long soaks, the built wheel
	$(BIN)/python -m pytest -m slow

coverage: $(VENV)/.test  ## The lines that the fast tests run; child processes do not count
	mkdir -p build/coverage
	$(STRICT) -m pytest $(WORKERS) -m '$(FAST) and not serial' --cov --cov-report=term --cov-report=html:build/coverage/html

fuzz: $(VENV)/.test  ## Readers of foreign files under atheris, and command lines by their grammar, in HOURS together
	$(PIP) atheris
	$(BIN)/python -m tests.fuzz $(HOURS)

mutants: $(VENV)/.test  ## Small changes to the source that no test notices, of MODULES or all that are listed; hours
	nice $(BIN)/python -m tests.mutants --share $(SHARE) $(MODULES)

test-oldest:  ## The oldest dependencies that pyproject.toml allows answer questions
	$(PYTHON) -m venv --clear build/oldest
	build/oldest/bin/python -m pip install --quiet --disable-pip-version-check numpy==1.26.1 tokenizers==0.21.0 \
		click==8.1.0 rich==13.0.0 onnxruntime==1.24.1 faiss-cpu==1.15.0 --editable .
	build/oldest/bin/ragengine eval examples/worldfacts/bundle examples/worldfacts/index \
		examples/worldfacts/questions.jsonl --json
	build/oldest/bin/ragengine demo

# Releases that transformers 4 needs beside it, where those in .venv are too new for it.
WITH_4 := 'tokenizers==0.22.*' 'huggingface-hub<1' requests urllib3 charset-normalizer idna certifi \
	'datasets==3.6.*' 'fsspec<=2025.3.0' 'dill<0.3.9' 'multiprocess<0.70.17'

test-transformers: $(VENV)/.test  ## Parity with another release: make test-transformers VERSION=4.57.1
	$(BIN)/python -m venv --clear build/transformers
	build/transformers/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
		transformers==$(VERSION) $(WITH_$(firstword $(subst ., ,$(VERSION))))
	$(BIN)/python -c 'import sysconfig; print("import site; site.addsitedir(%r)" % sysconfig.get_path("purelib"))' \
		> $$(echo build/transformers/lib/python*/site-packages)/main.pth
	build/transformers/bin/python -m pytest --numprocesses 2 --dist loadgroup tests/parity

# The frameworks of ragengine.integrations, each installed with ragengine alone: what one needs, no other has to have.
FRAMEWORKS := langchain llama-index haystack

test-integrations:  ## The adapters for LangChain, LlamaIndex and Haystack, each in an environment of its own
	for framework in $(FRAMEWORKS); do \
		$(PYTHON) -m venv build/frameworks/$$framework && \
		build/frameworks/$$framework/bin/python -m pip install --quiet --disable-pip-version-check \
			--constraint constraints.txt --editable ".[cpu,$$framework]" pytest && \
		build/frameworks/$$framework/bin/python -c "import ragengine.integrations.$$(echo $$framework | tr - _)" && \
		build/frameworks/$$framework/bin/python -X dev -W error -m pytest --confcutdir tests/integrations \
			-rs tests/integrations || exit 1; done

test-ray: $(VENV)/.test  ## Training, serving and building on a local Ray cluster, with ray in an environment of its own; minutes
	$(BIN)/python -m venv --clear build/ray
	$(BIN)/python -c 'import sysconfig; print("import site; site.addsitedir(%r)" % sysconfig.get_path("purelib"))' \
		> $$(echo build/ray/lib/python*/site-packages)/main.pth
	build/ray/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt 'ray[serve,data,train]'
	build/ray/bin/python -m pytest -m ray tests/distributed

audit: $(VENV)/.test  ## Known vulnerabilities of all installed packages; fails where one cannot be looked up
	$(PYTHON) -m venv build/audit
	build/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	$(BIN)/python -m pip list --format=freeze --exclude-editable | sed 's/+[^ ]*//' > build/audit/installed.txt
	build/audit/bin/pip-audit --strict --no-deps --disable-pip --requirement build/audit/installed.txt

sbom: $(VENV)/.test  ## The bill of materials of all installed packages, in CycloneDX's JSON: build/sbom.json
	$(PYTHON) -m venv build/tools
	build/tools/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt cyclonedx-bom
	build/tools/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible \
		--output-file build/sbom.json $(BIN)/python

lock:  ## What each extra installs, with the hashes of its files, in build/lock/EXTRA.txt
	$(PYTHON) -m venv build/tools
	build/tools/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt pip-tools
	mkdir -p build/lock
	for extra in $(EXTRAS); do \
		build/tools/bin/pip-compile --quiet --generate-hashes --strip-extras --no-emit-index-url --no-emit-find-links \
			--constraint constraints.txt --extra $$extra --output-file build/lock/$$extra.txt pyproject.toml || exit 1; done

build: $(VENV)/.test  ## The wheel and the source archive, in dist/
	rm -rf dist
	$(BIN)/python -m build

docs: $(VENV)/.test  ## The documentation site, in build/site: no network, and a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

docs-tutorial: $(VENV)/.test  ## The tutorial "your documents to answers" from nothing, its figures checked; minutes of training
	$(PIP) '.[starter]'
	$(BIN)/python -m pytest -m slow -s tests/docs/test_your_documents.py

bench: $(VENV)/.test  ## This machine: stages, rooflines, and the other engines that are installed; minutes
	$(BIN)/ragengine bench --shape worldfacts --precision fp32 --precision int8 --batch \
		--sweep documents --sweep beams \
		--bundle examples/worldfacts/bundle --index examples/worldfacts/index \
		--questions examples/worldfacts/questions.jsonl $(BENCH_CHECKPOINT) --output build/bench

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .grimp_cache .import_linter_cache

# pip's own refusal of an older Python names the versions of numpy instead.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ragengine needs Python 3.11 or newer, and \
	$(PYTHON) is %d.%d; run make with PYTHON=python3.12, or another that is there." % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.cpu: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable '.[cpu]'
	touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable '.[test]'
	touch $@ $(VENV)/.cpu

# The tests of the server's page need Chromium; where it is missing they skip, and this says so each time.
$(VENV)/.browser: | $(BIN)/python
	@if command -v chromium || command -v chromium-browser || command -v google-chrome; then touch $@; \
	elif [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then \
		echo "There is no Chromium, and only root on Debian installs it: the tests of the server's page are skipped."; \
	elif apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends chromium >/dev/null; then \
		touch $@; \
	else echo "Chromium could not be installed: the tests of the server's page are skipped."; fi
