# make demo | test | check: each sets up .venv from constraints.txt if it is not there, and does no work twice.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test check setup clean
setup: $(STAMP)

# an editable install copies the task files to where lm-eval looks: a new one needs another install
$(STAMP): pyproject.toml constraints.txt $(wildcard tatqa_task/tasks/*)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo "error: $(PYTHON) is not \
	Python 3.11 or newer; name one: make PYTHON=python3.12" >&2; exit 2; }
	@! test -x $(BIN)/python || $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "error: $(VENV) has a Python older than 3.11; make clean, then again" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
	touch $@

# The whole loop on the shipped base, on 2 CPU cores, into demo-results/ (ignored by git); ends by comparing its scores
# with those of the committed record. Questions are synthetic and the judge is a stand-in: both say so.
demo: $(STAMP)
	$(BIN)/tatqa-bench demo

check: $(STAMP)
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(BIN)/python -m results report --results results --check

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile -q

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
