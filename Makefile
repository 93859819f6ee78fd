# Two commands do everything on a fresh machine: `make retrain` and `make test`. Each sets up what it needs.
PYTHON ?= python3
BIN = .venv/bin
# Flags of `trademl lab`, such as make lab LAB=--allow-root
LAB ?=
# Two files of tests at a time: what they share is made once a file. In the order of tests/conftest.py, the longest first.
# Plugins by name: pytest would rewrite the assertions of all of Hypothesis for each of the three processes.
PYTEST = PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 $(BIN)/pytest -p xdist.plugin -p _hypothesis_pytestplugin
PYTEST += --numprocesses 2 --dist loadfile --no-loadscope-reorder
READY = .venv/.ready

.PHONY: setup retrain test test-all lab bench

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "TradeML needs Python 3.11 or newer: make PYTHON=python3.12"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing the workbench into .venv (about two minutes, 2.5 GB)"
	@$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[lab,test]'
	@echo "compiling its kernels (about a minute)"
	@$(BIN)/python -m trademl.explore
	@touch $(READY)

retrain: setup
	$(BIN)/trademl retrain

test: setup
	$(PYTEST) -m "not slow"

test-all: setup
	$(PYTEST)

lab: setup
	$(BIN)/trademl lab $(LAB)

bench: setup
	@for job in benchmarks/*.py; do echo "== $$job"; $(BIN)/python $$job || exit 1; done
