# `make demo` and `make test` are all a newcomer needs; both make .venv on their first call.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
WORKERS ?= 2
DEMO_ARGS ?=
BENCHMARK_ARGS ?= --out outputs/benchmark.json
FAULTS_ARGS ?= --out outputs/faults.json
FUZZ_ARGS ?=
# One arithmetic thread per process: the networks are small and the tests already run in parallel.
TEST_ENV := OMP_NUM_THREADS=1 MPLBACKEND=Agg

.PHONY: help venv demo ecc-demo explorer test slow lint types docs check benchmark faults fuzz clean
help:
	@echo "make demo   install, train DCP-MADDPG, compare it with every baseline (about 2 minutes after the install)"
	@echo "make ecc-demo   install, train CSI positioning over a thin fronthaul, compare it with every baseline (about 4 minutes)"
	@echo "make explorer   write outputs/explorer.html: bounds of arrival times to play with in a browser"
	@echo "make test   all tests      make slow   the tests that train for minutes"
	@echo "make lint   ruff           make types  mypy           make docs  check links, pages, equation index"
	@echo "make benchmark   speed in CPU time beside mpe2, VMAS and mobile-env (which it installs)"
	@echo "make faults   kill trainings, damage their files, fill their disk: tables of what is lost (nothing)"
	@echo "make fuzz   10 000 wrong options, files and command lines: what crashes, hangs, gives NaN or is refused unclearly"
	@echo "make venv   only install   make clean  remove $(VENV), caches and builds (never outputs/)"

venv: $(VENV)/.installed
# torch first: with its pinned release in place, no dependency can pull in another one.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet torch -c constraints.txt
	$(BIN)/python -m pip install --quiet -e ".[dev]" -c constraints.txt
	@touch $@

demo: venv
	$(BIN)/python scripts/demo.py $(DEMO_ARGS)

ecc-demo: venv
	$(BIN)/python scripts/ecc_demo.py $(DEMO_ARGS)

explorer: venv
	$(BIN)/python scripts/explorer.py --out outputs/explorer.html

test: venv
	$(TEST_ENV) $(BIN)/python -m pytest -n $(WORKERS) -m "not slow"

slow: venv
	$(TEST_ENV) $(BIN)/python -m pytest -m slow

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Types are checked in the wheel's layout, in which cfpos.agents is a folder; outside the tree, because the build backend
# follows links and would then leave the folders themselves out.
types: venv
	@layout=$$(mktemp -d) && trap 'rm -rf "$$layout"' EXIT && mkdir "$$layout/cfpos" && \
	ln -s $(CURDIR)/cfpos_envs "$$layout" && \
	for path in cfpos/*.py agents baselines conf scripts; do ln -s $(CURDIR)/$$path "$$layout/cfpos/"; done && \
	cd "$$layout" && $(abspath $(BIN))/mypy --config-file $(CURDIR)/pyproject.toml --cache-dir $(CURDIR)/.mypy_cache

docs: venv
	$(BIN)/python scripts/check_docs.py

check: lint types docs test

benchmark: venv
	$(BIN)/python -m pip install --quiet -e ".[benchmark]" -c constraints.txt
	$(BIN)/python scripts/benchmark.py $(BENCHMARK_ARGS)

faults: venv
	$(TEST_ENV) $(BIN)/python scripts/faults.py $(FAULTS_ARGS)

fuzz: venv
	$(TEST_ENV) $(BIN)/python scripts/fuzz.py $(FUZZ_ARGS)

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
