# make demo | test | check: each sets up .venv from constraints.txt if it is not there, and does no work twice.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test check setup clean
setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
	touch $@

# The whole loop on the shipped base, on 2 CPU cores. Questions are synthetic and the judge is a stand-in: both say so.
DEMO := train/recipes/demo.yaml --judge-model stand-in-judge --bench demo --max-new-tokens 64 --batch-size 32
demo: $(STAMP)
	TATQA_DATA=synthetic HF_HUB_OFFLINE=1 $(BIN)/python -m mtbench_runner.stand_in_judge \
	    $(BIN)/python -m results run $(DEMO)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m results report --check

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile -q

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
