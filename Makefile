# Two commands, each of which does all its own set-up on a fresh clone:
#   make reproduce   the paper's figure with the exact theory over it, into results/multitask/report.html
#   make test        style, types, layers, tests; the slow ones too where CI is set
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3
CONSTRAINT ?= --constraint constraints.txt # empty: the newest of everything

BROWSERS := command -v chromium || command -v chromium-browser || command -v google-chrome

.PHONY: reproduce test browser lint docs bench dist matrix check-dist clean

reproduce: $(VENV)/.installed
	$(BIN)/gladient reproduce --resume $(ARGS)

test: lint browser # a process for each core, so NumPy needs no threads
	OPENBLAS_NUM_THREADS=1 $(BIN)/pytest -n auto --dist worksteal $(if $(CI),,-m "not slow") $(ARGS)

browser: # for the tests of the lens' page: Debian's Chromium, where it can be installed
	@($(BROWSERS)) >/dev/null \
	  || { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -qq --no-install-recommends chromium; } >/dev/null 2>&1 \
	  || echo "No Chromium, and none could be installed: the lens' page is not tested in a browser."

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/oxlint --deny-warnings src

docs: $(VENV)/.installed # the site, into site/index.html; it needs no other host
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	$(BIN)/python -m doctools.check site

bench: $(VENV)/.installed
	$(BIN)/python -m benchmarks.training
	$(BIN)/python -m benchmarks.landscape
	$(BIN)/python -m benchmarks.operators --cases all

TARGETS := linux-x86_64 linux-aarch64 macos-x86_64 macos-arm64 windows-x86_64

dist: $(VENV)/.installed # what a release uploads: the sdist, and a wheel for each platform, with its kernels
	rm -rf dist
	$(BIN)/python -m build --no-isolation --sdist
	for target in $(TARGETS); do GLADIENT_TARGET=$$target $(BIN)/python -m build --no-isolation --wheel || exit 1; done
	$(BIN)/twine check --strict dist/*
	$(BIN)/python .ci/wheels.py dist/*.whl

matrix: # the core tests in fresh environments, with PyTorch from the oldest to the newest; after `make dist`
	$(BIN)/python .ci/versions.py $(ARGS)

check-dist: # the wheel in fresh environments, with the versions that the tests run with
	PIP_CONSTRAINT=$(CURDIR)/constraints.txt $(BIN)/python .ci/fresh_install.py $(ARGS)

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet $(CONSTRAINT) --editable '.[dev]'
	$(BIN)/pip install --quiet --no-deps opensr-mamba==0.0.1 # docs/super-resolution.md; its requirements are for a GPU
	$(BIN)/python -c "from gladient.ops.native import build; build.why_unavailable()" # compiled now, no first call waits
	touch $@

clean: # keeps results
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
