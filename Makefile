# Two commands do everything: `make train` and `make test`. Each makes its own environment the first time.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
RUN ?= runs/default

.PHONY: train test check bench clean

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(READY)

train: $(READY)  ## train the reference model on the embedded corpus; run again to resume
	$(BIN)/python -m harness train --run $(RUN) $(ARGS)

test: $(READY)  ## all tests, doctests and README's blocks
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

check: $(READY)  ## lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

bench: $(READY)  ## every benchmark, each prints ratios measured in one run
	set -e; for file in benchmarks/*.py; do echo "== $$file"; $(BIN)/python $$file; done

clean:  ## remove the environment and what runs made
	rm -rf .venv runs build dist *.egg-info
