# Needs only Python >= 3.11 and make: every target sets up what it uses, in .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check install --constraint constraints.txt

export HF_HUB_OFFLINE := 1
has = $(shell grep -m1 -o $(1) /proc/cpuinfo)
AVX512 := $(if $(call has,avx512_vnni),-DGGML_AVX512=ON -DGGML_AVX512_VNNI=ON) \
	$(if $(call has,avx512_bf16),-DGGML_AVX512_BF16=ON)
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: assets $(VENV)/.apertium ## play a customer-service conversation on the embedded model
	@$(BIN)/agentkit demo

.PHONY: test
test: $(VENV)/.dev test-assets $(VENV)/.apertium ## run the tests, but for the slow ones
	$(BIN)/python -m pytest -q -m "not slow"

.PHONY: test-all
test-all: $(VENV)/.dev test-assets $(VENV)/.apertium ## run all tests
	$(BIN)/python -m pytest -q

.PHONY: bench
bench: $(VENV)/.bench assets ## measure against llama.cpp, transformers, smolagents, xgrammar, txtai and TRL; about two hours
	for each in speed adapters drafts sessions quality tool_loop bfcl arguments index search ingest rag finetuning beside shipped perplexity; do $(BIN)/python benchmarks/$$each.py || exit 1; done
	$(BIN)/python benchmarks/finetuning.py --traces shared
	$(BIN)/python benchmarks/tune_routing.py --adapter auto --summary docs/benchmarks/routing.json
	$(BIN)/python benchmarks/report.py

.PHONY: check
check: $(VENV)/.dev ## check format, lint, types, layers and docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layers.py tests/test_docs.py

.PHONY: venv
venv: $(VENV)/.dev ## only set up .venv, with everything for development

.PHONY: clean
clean: ## remove .venv and everything built; embedded models and user data stay
	rm -rf $(VENV) build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp per step: a second run starts at once, and a changed pyproject.toml or constraints.txt installs again.

$(VENV)/.stamp: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo 'agentkit needs Python 3.11 or newer; name one: make PYTHON=python3.12'; exit 1; }
	@echo 'Setting up $(VENV) (about two minutes)'
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) torch==$$(sed -n 's/^torch==//p' constraints.txt)
	@$(PIP) hatchling editables
	@$(PIP) --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.stamp
	@$(PIP) --no-build-isolation --editable '.[dev]'
	@$(PIP) --no-deps bfcl-eval==2026.3.23 # for its data and its checker; what it names are clients of many vendors
	@touch $@

.PHONY: assets
assets: $(VENV)/.stamp # always asked, for the cache may have been emptied; it answers at once if nothing is missing
	@$(BIN)/agentkit models pull

.PHONY: test-assets
test-assets: assets # a second family, on which the engine is held to what it promises: 240 MB, converted once
	@$(BIN)/agentkit models pull gemma3-270m

# Built from source, about eight minutes: prebuilt wheels use less of the processor. Without AMX, with which it crashes.
# datasets 5.2 fails over a class of pyarrow when TRL makes its data set.
$(VENV)/.bench: $(VENV)/.dev
	@CMAKE_ARGS='-DGGML_NATIVE=OFF -DGGML_AVX=ON -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON $(AVX512)' \
		$(PIP) llama-cpp-python smolagents txtai trl==1.16.0 "datasets<5"
	@$(PIP) --no-deps xgrammar==0.2.8 # what else it names are GPU compilers
	@$(PIP) apache-tvm-ffi==0.1.15.post2
	@touch $@

# The translator's embedded backend is a Debian package. Without it only the translation step is skipped.
$(VENV)/.apertium: $(VENV)/.stamp
	@if command -v apertium >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo 'Installing apertium-eng-spa'; \
		{ apt-get -qq -o Acquire::http::Timeout=20 update && \
		  DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends apertium-eng-spa; \
		} >/dev/null 2>&1 || echo 'apertium-eng-spa could not be installed; translation will be skipped'; \
	else echo 'Translation will be skipped; on Debian or Ubuntu: sudo apt-get install apertium-eng-spa'; fi
	@touch $@
