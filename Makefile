# Two commands do all of their own set-up: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# the user's targets: make align CONFIG=my/data.toml
CONFIG ?= data.toml
TASKS ?= va expr au
# runs to report on
RUNS ?= $(foreach task,$(TASKS),fuse-$(task)-netease)
ARGS ?=
# tests: folder of real recordings, e.g. make test REAL=../shared/data
REAL ?=
DEMO ?= demo
ABAW := $(BIN)/abaw
RUN = $(ABAW) $(1) -c $(CONFIG) $(ARGS)

.PHONY: help setup demo test lint types format docs bench check clean \
	align train features fuse evaluate submit report

help:
	@echo "make demo      the whole pipeline on a generated set (two CPU cores: under ten minutes)"
	@echo "make test      the tests; with REAL=DIR also those on real recordings"
	@echo "make check     lint, types and tests"
	@echo "make bench     all benchmarks; python -m bench NAME runs one"
	@echo "make align train features fuse evaluate submit report CONFIG=data.toml   the pipeline on your data"

# -- set-up ------------------------------------------------------------------------------------------------------------
define SYSTEM_CHECK
import ctypes, sys
if sys.version_info < (3, 11):
    sys.exit(f"abaw needs Python 3.11 or newer, this is {sys.version.split()[0]}; give one with make PYTHON=python3.11")
try:
    import ensurepip
except ImportError:
    sys.exit("Python lacks venv. On Debian or Ubuntu: apt-get install python3-venv")
for name in ("libGL.so.1", "libgthread-2.0.so.0"):
    try:
        ctypes.CDLL(name)
    except OSError:
        sys.exit(f"the system library {name} is missing. On Debian or Ubuntu: apt-get install libgl1 libglib2.0-0")
endef
export SYSTEM_CHECK

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml
	@$(PYTHON) -c "$$SYSTEM_CHECK"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing abaw and what it needs into $(VENV) (once, a few minutes)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[test,parity]"
	@touch $@

$(VENV)/.test: $(VENV)/.ready
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[test,parity,ray]"
	@touch $@

$(VENV)/.dev: $(VENV)/.ready
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[test,parity,ray,dev]"
	@touch $@

# -- demo --------------------------------------------------------------------------------------------------------------
demo: $(VENV)/.ready
	@$(ABAW) synth $(DEMO)
	@$(MAKE) --no-print-directory align train features fuse submit report evaluate CONFIG=$(DEMO)/data.toml

# -- the pipeline on a configuration -----------------------------------------------------------------------------------
align: $(VENV)/.ready
	$(call RUN,align)

train: $(VENV)/.ready
	$(call RUN,pretrain)
	@for task in $(TASKS); do echo "$(call RUN,finetune) --task $$task"; $(call RUN,finetune) --task $$task || exit $$?; done

features: $(VENV)/.ready
	$(call RUN,extract-visual)
	$(call RUN,extract-audio)

fuse: $(VENV)/.ready
	@for task in $(TASKS); do echo "$(call RUN,fuse) --task $$task"; $(call RUN,fuse) --task $$task || exit $$?; done

evaluate: $(VENV)/.ready
	$(call RUN,evaluate)

submit: $(VENV)/.ready
	@for task in $(TASKS); do echo "$(call RUN,submit) --task $$task"; $(call RUN,submit) --task $$task || exit $$?; done

report: $(VENV)/.ready
	@for run in $(RUNS); do echo "$(call RUN,report) $$run"; $(call RUN,report) $$run || exit $$?; done

# -- quality -----------------------------------------------------------------------------------------------------------
test: $(VENV)/.test
	$(BIN)/python -m pytest $(if $(REAL),--real-data=$(REAL))

lint: $(VENV)/.dev
	$(BIN)/ruff check abaw bench tests
	$(BIN)/ruff format --check abaw bench tests

types: $(VENV)/.dev
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix abaw bench tests
	$(BIN)/ruff format abaw bench tests

docs: $(VENV)/.ready
	$(BIN)/python docs/reference.py

bench: $(VENV)/.ready
	$(BIN)/python -m bench

check: lint types test

clean:
	rm -rf $(DEMO) build .pytest_cache .mypy_cache .ruff_cache .hypothesis
