# Freehold's commands. `make demo` and `make test` need only Python 3.11, make and a C compiler: they set up .venv
# themselves, once, and again when pyproject.toml changes.

PYTHON       ?= python3
BIN          := .venv/bin
READY        := .venv/.ready
JOBS         ?= 2
DEMO_RECORDS ?= 10000000
DEMO_DIR     ?=
FIGURES      ?=
ROUNDS       ?= 5

.NOTPARALLEL:
.DEFAULT_GOAL := help
.PHONY: help setup demo bench bench-check test check format clean distclean \
        test-machines test-sim test-processes test-chaos test-shuffle

help:
	@echo "make demo    sort 1 GB on three nodes of this machine, check it, and clean up"
	@echo "make test    everything: lint, types, machines, simulation, processes, chaos, shuffle"
	@echo "make check   lint, format and types only"
	@echo "make format  put the code in its standard form"
	@echo "make bench   measure ours, the peers and the bare floor in one run (sets the peers up in bench/.env)"
	@echo "make bench-check   fail if a recorded ratio to a peer has become more than 20 % worse"
	@echo "make clean   remove caches and build products; distclean also removes the environments"

# --- set-up -----------------------------------------------------------------------------------------------------------

setup: $(READY)

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "Freehold needs Python 3.11 or newer as '$(PYTHON)': install it, or say make PYTHON=/path/to/python3.11"; \
	    exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo "'$(PYTHON)' cannot make virtual environments: apt-get install python3-venv"; exit 1; }
	@echo "Setting up .venv (about a minute, once)"
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --editable '.[dev]'
	@$(BIN)/python -m compileall -q src
	@touch $@

# --- demo and bench ---------------------------------------------------------------------------------------------------

demo: $(READY)
	@PATH="$(CURDIR)/$(BIN):$$PATH" DEMO_RECORDS=$(DEMO_RECORDS) DEMO_DIR="$(DEMO_DIR)" sh examples/demo.sh

bench: $(READY)
	@$(BIN)/python -m bench --doc --rounds $(ROUNDS) $(FIGURES)

bench-check: $(READY)
	@$(BIN)/python -m bench.check

# --- tests ------------------------------------------------------------------------------------------------------------
# Fastest first, so that a broken machine is told before a cluster is started. Every folder of tests belongs to one of
# these layers; tests/test_tidy.py checks that none is forgotten.

MACHINES  := core roles wire store
SIM       := sim
PROCESSES := runtime api util conformance cli processes
CHAOS     := chaos
SHUFFLE   := shuffle

folders = $(addprefix tests/,$(1))

# $(call layer,TITLE,PATHS,OPTIONS): one run of pytest.
layer = @echo "== $(1)"; $(BIN)/python -m pytest -q $(3) $(2)

test: check test-machines test-sim test-processes test-chaos test-shuffle

check: $(READY)
	@echo "== lint, format and types"
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check . || { echo "run: make format"; exit 1; }
	@$(BIN)/mypy --no-error-summary

format: $(READY)
	@$(BIN)/ruff check --quiet --fix . ; $(BIN)/ruff format .

test-machines: $(READY)
	$(call layer,machines alone,$(wildcard tests/test_*.py bench/test_*.py) $(call folders,$(MACHINES)),-n $(JOBS))

test-sim: $(READY)
	$(call layer,simulated clusters,$(call folders,$(SIM)),-n $(JOBS))

# One folder's fixtures stay in one process (loadfile): a cluster is started once a file, not once a test.
test-processes: $(READY)
	$(call layer,real processes,$(call folders,$(PROCESSES)),-n $(JOBS) --dist loadfile)

# Serially: these starve and kill, and time what follows.
test-chaos: $(READY)
	$(call layer,chaos,$(call folders,$(CHAOS)))

test-shuffle: $(READY)
	$(call layer,shuffle,$(call folders,$(SHUFFLE)))

# --- tidying up -------------------------------------------------------------------------------------------------------

clean:
	rm -rf build dist src/*.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find $(wildcard src tests bench examples) -name __pycache__ -not -path '*/.env/*' -prune -exec rm -rf {} +

distclean: clean
	rm -rf .venv bench/.env
