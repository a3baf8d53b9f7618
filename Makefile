# Every target makes its own .venv first; Python 3.11 or newer with its venv module, and make, are all that must be there.
#   make demo PYTHON=python3.12                              another interpreter
#   make demo PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu    the small CPU build of torch on Linux
# With a folder wheelhouse/ (`make wheelhouse`, on a machine of the same kind) nothing is asked of the network.

PYTHON ?= python3
WHEELHOUSE ?= wheelhouse
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
NEEDS := pyproject.toml constraints.txt
OFFLINE := $(if $(wildcard $(WHEELHOUSE)/*.whl),--no-index --find-links "$(abspath $(WHEELHOUSE))")
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check
INSTALL := $(PIP) install $(OFFLINE) --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test check format bench wheelhouse clean

help: ## say what can be made
	@grep -hE '^[a-z]+:.*## ' Makefile | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 20

demo: $(VENV)/.stamp-run ## text to model in minutes, from the documentation inside this Python; needs no data
	@$(BIN)/lexloom demo $(ARGS)

test: $(VENV)/.stamp-dev ## run the tests; ARGS is handed to pytest
	@$(BIN)/python -m pytest $(ARGS)

check: $(VENV)/.stamp-dev ## formatting, lint, types, import floors
	@$(BIN)/ruff format --check --quiet . || { echo "not formatted: run make format" >&2; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/python -m pytest --quiet --no-header --no-summary tests/test_layers.py tests/test_safety.py

format: $(VENV)/.stamp-dev ## format the code and mend what lint can mend
	@$(BIN)/ruff format --quiet .
	@$(BIN)/ruff check --quiet --fix .

bench: $(VENV)/.stamp-dev ## run every benchmark, each beside its peer, and print the table of docs/performance.md
	@for file in benchmarks/[!_]*.py; do \
		echo "== $$file"; $(BIN)/python "$$file" || exit 1; done
	@$(BIN)/python benchmarks/_table.py

wheelhouse: $(BIN)/pip ## gather in wheelhouse/ all it takes to install with no network
	@rm -rf .wheelhouse.part
	@$(PIP) wheel --constraint constraints.txt --wheel-dir .wheelhouse.part ".[dev]" hatchling editables
	@mkdir -p "$(WHEELHOUSE)" && rm -f "$(WHEELHOUSE)"/*.whl && mv .wheelhouse.part/*.whl "$(WHEELHOUSE)" && rmdir .wheelhouse.part
	@echo "$(WHEELHOUSE): $$(ls "$(WHEELHOUSE)" | wc -l | tr -d ' ') wheels"

clean: ## remove .venv, caches and built packages; runs/ and wheelhouse/ stay
	@rm -rf $(VENV) .wheelhouse.part build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find lexloom tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# pip, not python, is the mark of a whole environment: some systems leave the former out when a part of Python is missing.
$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "lexloom needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; say which with: make PYTHON=python3.12")'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.stamp-run: $(NEEDS) | $(BIN)/pip
	@echo "installing lexloom into $(VENV) (minutes, the first time)" >&2
	@$(INSTALL) --editable .
	@touch $@

$(VENV)/.stamp-dev: $(NEEDS) | $(BIN)/pip
	@echo "installing lexloom and its development tools into $(VENV) (minutes, the first time)" >&2
	@$(INSTALL) --editable ".[dev]"
	@touch $(VENV)/.stamp-run $@
