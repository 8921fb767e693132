# Every target sets up what it needs in .venv; nothing is installed elsewhere.
#
#   make demo    the whole method in miniature, with a report in out/demo
#   make test    everything that must hold before a change goes in
#
# PYTHON=/path/to/python chooses the interpreter. Behind a mirror, set pip's own variables
# (PIP_INDEX_URL and the like); TORCH_CPU_INDEX= (empty) keeps to that index for torch as well.

SHELL := /bin/sh
VENV := .venv
READY := $(VENV)/.ready
RUN := $(VENV)/bin
CODE := staged data_pipelines train eval tests benchmarks
# Without an NVIDIA GPU the plain wheel for Linux brings some GB of CUDA that nothing would use.
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu
# Workers share the cores already; more threads in each only slow them down.
# Compiled modules are kept whatever the shell says: hundreds of processes would compile anew.
TEST_ENV := OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1 \
  PYTHONDONTWRITEBYTECODE=

.DEFAULT_GOAL := help
.PHONY: help setup demo test tests test-slow lint format clean

help:
	@sed -n 's/^#   //p' Makefile

setup: $(READY)

demo: $(READY)
	$(RUN)/staged demo --out out/demo

# Side by side: neither has work for two cores at its beginning and its end.
test: $(READY)
	$(MAKE) --no-print-directory -j 2 lint tests

# Two workers more than two cores: many tests wait, for processes, servers and kills. Collecting once
# before them compiles all modules once: four workers that begin at the same time do it four times.
tests: $(READY)
	@$(TEST_ENV) $(RUN)/python -m pytest -q --collect-only > $(VENV)/collected 2>&1 || \
	  { cat $(VENV)/collected; exit 1; }
	$(TEST_ENV) $(RUN)/python -m pytest -q -n 4 --dist worksteal -m "not slow" --durations=40

test-slow: $(READY)
	$(TEST_ENV) $(RUN)/python -m pytest -q -m slow

lint: $(READY)
	$(RUN)/ruff check $(CODE)
	$(RUN)/ruff format --check $(CODE)
	$(RUN)/mypy
	$(RUN)/lint-imports

format: $(READY)
	$(RUN)/ruff check --fix $(CODE)
	$(RUN)/ruff format $(CODE)

$(RUN)/python:
	@new='import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))'; \
	for python in $(or $(PYTHON),python3.12 python3.11 python3.13 python3 python3.14 python); do \
	  if "$$python" -c "$$new" >/dev/null 2>&1; then \
	    echo "Making $(VENV) with $$($$python --version)"; \
	    "$$python" -m venv $(VENV) && exit 0; \
	    exit 1; \
	  fi; \
	done; \
	echo 'staged needs Python 3.11 or newer with its venv module, and found none' \
	  'among: $(or $(PYTHON),python3.11 to python3.14, python3, python).' >&2; \
	echo 'Debian, Ubuntu: apt install python3 python3-venv; macOS: brew install python.' >&2; \
	echo 'One that is elsewhere: make PYTHON=/path/to/python ...' >&2; \
	exit 1

# Nothing is compiled that nobody imports: that took longer than to unpack it.
PIP_INSTALL := $(RUN)/python -m pip install -q --no-compile -c constraints.txt

# Torch first and alone, so that the CPU index can serve nothing but torch and what it needs.
$(READY): pyproject.toml constraints.txt | $(RUN)/python
	@extra=''; \
	if [ "$$(uname -s)" = Linux ] && [ -n "$(TORCH_CPU_INDEX)" ] \
	    && ! command -v nvidia-smi >/dev/null 2>&1 \
	    && $(RUN)/python -c 'import sys, urllib.request as r; r.urlopen(sys.argv[1], timeout=10)' \
	      "$(TORCH_CPU_INDEX)/torch/" >/dev/null 2>&1; then \
	  extra='--extra-index-url $(TORCH_CPU_INDEX)'; \
	fi; \
	echo "Installing torch $$extra"; \
	$(PIP_INSTALL) $$extra torch
	@echo 'Installing staged and its dependencies'
	@$(PIP_INSTALL) -e '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) out build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
