# The commands of this project; `make` alone lists them. Everything is installed into .venv.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help venv lint test client-tools test-clients docs fuzz demo wheel wheels release-check clean

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
CLIENT_TOOLS := build/clients/.installed
TYPECHECK := build/typecheck
TRITON_MODEL := $(wildcard serving/replicas/triton/*/1/model.py)
# The root folders that install as parts of gptoss_onnx.
FOLDERS := $(patsubst %/__init__.py,%,$(wildcard */__init__.py))

# Both spellings, because pip 25.3 moved the pins of build environments to the second.
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
export PIP_BUILD_CONSTRAINT := $(CURDIR)/constraints.txt

# Containers often set it. Without compiled files every process would compile torch, sympy and onnxscript anew, which
# doubles the time of an export; `make clean` removes them with .venv.
unexport PYTHONDONTWRITEBYTECODE

# How long `make fuzz` runs the ops (conversions of weights a fifth of it), and what cases are drawn from.
FUZZ_SECONDS ?= 600
FUZZ_SEED ?= $(shell date +%s)

# What `make test-clients` runs: the second has OpenAI's own renderer of harmony beside ours.
CLIENT_TESTS ?= tests/clients tests/serving/prompts

# What `make test` runs; `make test MARKERS=` runs everything.
MARKERS ?= not slow and not gpu and not clients and not image and not wheels

# Processes that share the tests, each with up to 1 GB of memory; 0 runs them in one, where `--pdb` works.
WORKERS ?= 2
PYTEST := $(BIN)/pytest --numprocesses $(WORKERS) --dist worksteal

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /make \1\t/' | expand -t 20
	@echo "make PYTHON=/path/to/python TARGET chooses the Python (3.11 or newer) that .venv is made from"

venv: $(INSTALLED) ## Create .venv and install the project in it, editable, with the native library

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit( \
	  "Python 3.11 or newer is needed, found %s at %s: run make PYTHON=/path/to/python3.11 ..." \
	  % (sys.version.split()[0], sys.executable))'
	$(PYTHON) -m venv .venv

# Installed again only when something that the install depends on has changed. pip would take a minute to compile what
# it installs; the last line compiles what an export imports, so that not even the first one waits for it.
$(INSTALLED): pyproject.toml constraints.txt $(wildcard custom_ops/native/* custom_ops/native/*/*) | $(BIN)/python
	@[ -n "$${GPTOSS_SKIP_NATIVE:-}" ] || command -v "$${CXX:-c++}" >/dev/null || { echo "No C++17 compiler \
	found: install one, or set GPTOSS_SKIP_NATIVE=1 to do without the native library" >&2; exit 1; }
	$(BIN)/pip install --no-compile -c constraints.txt -e '.[cpu,export,serve,dev,docs]'
	@$(BIN)/python -c 'import gptoss_onnx.exporter, torch._dynamo'
	@touch $@

# mypy cannot see through an editable install, whose modules an import hook finds. It reads a tree of links in
# the shape of the installed package instead, which needs no install and shows every edit.
lint: venv ## Check style, format and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	@rm -rf $(TYPECHECK) && mkdir -p $(TYPECHECK)/gptoss_onnx
	@ln -s $(abspath $(wildcard src/gptoss_onnx/*) $(FOLDERS)) $(TYPECHECK)/gptoss_onnx
	$(BIN)/mypy --exclude '/replicas/triton/' $(TYPECHECK)/gptoss_onnx $(wildcard demo/*.py docs/site/*.py)
	@MYPYPATH=$(TYPECHECK) $(BIN)/mypy $(TRITON_MODEL) # alone: Triton's name for it is taken

test: lint ## Lint, then run the tests that need no GPU, no client in another language and no long time
	$(PYTEST) -m "$(MARKERS)"
	@echo 'Selected: "$(MARKERS)" (empty: everything). What the default leaves out, because it needs'
	@echo 'what most machines lack or takes too long:'
	@echo '  slow     minutes rather than seconds, or gigabytes of address space'
	@echo '  gpu      a CUDA device and onnxruntime-gpu'
	@echo '  wheels   the files of make wheels in dist/'
	@echo '  clients  npm packages, a Chromium, onnxruntime-genai: make test-clients installs them'
	@echo '  image    root, buildah, debootstrap and ten minutes: builds the image of the Dockerfile'
	@echo 'Run one group with, for instance: make test MARKERS=slow'

client-tools: $(CLIENT_TOOLS) ## Install what the clients in C++, Node.js and the browser need

$(CLIENT_TOOLS): $(INSTALLED) $(wildcard clients/*/package-lock.json tests/clients/*/package-lock.json clients/cpp/*.sh tests/clients/*.sh)
	bash tests/clients/install.sh
	@touch $@

test-clients: client-tools ## Install what the clients need, build them and run their tests
	$(PYTEST) -m clients $(CLIENT_TESTS)

docs: venv ## Build the documentation site into build/site; the first broken link or other warning ends it
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo "build/site/index.html"

fuzz: venv ## Build the native library with sanitizers and drive it with random calls for FUZZ_SECONDS
	cmake -S custom_ops/native -B build/fuzz -DGPTOSS_SANITIZE=address,undefined
	cmake --build build/fuzz --parallel
	$(BIN)/python tests/fuzz/fuzz_kernels.py --seconds $(FUZZ_SECONDS) --seed $(FUZZ_SEED) \
	  --library build/fuzz/libgptoss_ops.so
	$(BIN)/python tests/fuzz/fuzz_encoding.py --seconds $$(($(FUZZ_SECONDS) / 5)) --seed $(FUZZ_SEED) \
	  --library build/fuzz/libgptoss_ops.so
	$(BIN)/python tests/fuzz/leaks.py

demo: venv ## Export the demo checkpoint, validate the package, generate from it
	$(BIN)/gptoss-onnx export demo/checkpoint --output demo/package --force
	$(BIN)/gptoss-onnx validate demo/package --reference demo/checkpoint --report demo/report
	$(BIN)/gptoss-onnx generate demo/package --prompt "It was a bright morning, and she" \
	  --temperature 0.7 --top-p 0.9 --seed 2 --max-new-tokens 140

# A build environment of pip's own brings another CMake each time, and CMake then compiles everything anew.
wheel: venv ## Build the wheel of this machine's platform into dist/; again, it compiles only what has changed
	$(BIN)/pip wheel --no-deps $(if $(shell command -v cmake),--no-build-isolation) --wheel-dir dist .

release-check: ## Run all that a release rests on, in a clean clone of the last commit
	bash deploy/release_check.sh

wheels: ## Build what is published into dist/: manylinux_2_28 wheels of MACHINES, and the sdist
	bash wheels/build.sh

clean: ## Remove .venv and everything built
	rm -rf .venv build dist demo/package demo/report .pytest_cache .mypy_cache .ruff_cache .hypothesis
